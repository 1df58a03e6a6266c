//! What happened, as a metric and a log line.
//!
//! Separate so that names and labels stand in one place. Labels come from enums, never from what a caller sent; no event holds
//! a judged text.

use crate::error::SafetyError;
use crate::policy::{Direction, Verdict};
use api_types::ErrorCode;
use std::time::Instant;
use tracing::Span;

/// How a call ends whose caller has gone.
const CANCELLED: &str = "cancelled";

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Screen,
    Analyze,
    AnalyzeImage,
    ShieldPrompt,
    DetectProtectedText,
    DetectProtectedCode,
    /// Blocklists or their items are looked at.
    ReadBlocklist,
    /// They are changed.
    ChangeBlocklist,
}

impl Call {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Screen => "screen",
            Self::Analyze => "analyze",
            Self::AnalyzeImage => "analyze_image",
            Self::ShieldPrompt => "shield_prompt",
            Self::DetectProtectedText => "detect_protected_text",
            Self::DetectProtectedCode => "detect_protected_code",
            Self::ReadBlocklist => "read_blocklist",
            Self::ChangeBlocklist => "change_blocklist",
        }
    }
}

/// A call that is being answered; dropping it unanswered says that its caller has gone.
#[derive(Debug)]
pub(crate) struct Asked {
    span: Span,
    call: &'static str,
    started: Instant,
    code: &'static str,
}

impl Asked {
    /// A call has come, in the current span.
    pub(crate) fn begin(call: Call) -> Self {
        let call = call.as_str();
        metrics::gauge!("content_safety_in_flight_requests", "call" => call).increment(1.0);
        Self { span: Span::current(), call, started: Instant::now(), code: CANCELLED }
    }

    /// It has been answered.
    pub(crate) fn answered<T>(mut self, outcome: &Result<T, SafetyError>) {
        self.code = match outcome {
            Ok(_) => "ok",
            Err(error) => error.code().as_str(),
        };
        let call = self.call;
        match outcome {
            Ok(_) => {}
            // A caller's mistakes are the caller's to read; these are the operator's.
            Err(error) if matches!(error.code(), ErrorCode::Internal) => {
                tracing::error!(%error, call, "a call failed");
            }
            Err(error) => tracing::debug!(code = self.code, call, %error, "a call was refused"),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _in_span = self.span.enter();
        let Self { call, code, .. } = *self;
        metrics::gauge!("content_safety_in_flight_requests", "call" => call).decrement(1.0);
        metrics::counter!("content_safety_requests_total", "call" => call, "code" => code)
            .increment(1);
        metrics::histogram!("content_safety_request_seconds", "call" => call)
            .record(self.started.elapsed());
    }
}

/// A policy has spoken.
pub(crate) fn judged(policy: &str, direction: Direction, verdict: &Verdict) {
    let direction = direction.as_str();
    let outcome = if verdict.blocked { "blocked" } else { "passed" };
    let labels = [("direction", direction), ("outcome", outcome)];
    metrics::counter!("content_safety_verdicts_total", &labels).increment(1);
    let mut reasons = Vec::new();
    for (category, judged) in &verdict.categories {
        if judged.filtered {
            reasons.push(category.as_str());
        }
    }
    let attacks =
        [("jailbreak", &verdict.jailbreak), ("indirect_attack", &verdict.indirect_attack)];
    let filtered = attacks.iter().filter(|(_, j)| j.as_ref().is_some_and(|j| j.filtered));
    reasons.extend(filtered.map(|(name, _)| *name));
    if verdict.blocklists.iter().flatten().any(|judged| judged.filtered) {
        reasons.push("blocklist");
    }
    for reason in &reasons {
        let labels = [("direction", direction), ("reason", *reason)];
        metrics::counter!("content_safety_filtered_total", &labels).increment(1);
    }
    if verdict.blocked {
        let severities: Vec<String> = verdict
            .categories
            .iter()
            .map(|(category, judged)| {
                format!("{}={}", category.as_str(), judged.found.severity.value())
            })
            .collect();
        let (reasons, severities) = (reasons.join(","), severities.join(","));
        tracing::info!(policy, direction, reasons, severities, "content was blocked");
    }
}
