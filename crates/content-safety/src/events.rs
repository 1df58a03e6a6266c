//! What happened, as a metric and a log line.
//!
//! Separate so that names and labels stand in one place. Labels come from enums, never from what a caller sent; no event holds
//! a judged text.

use crate::blocklist::Hit;
use crate::category::{Attack, Grade, Severity, Span};
use crate::error::SafetyError;
use crate::policy::{Direction, Verdict};
use api_types::ErrorCode;
use onnx::OnnxError;
use std::fmt;
use std::time::Instant;

/// How a call ends whose caller has gone.
const CANCELLED: &str = "cancelled";
/// How a call ends that the models' queue had no room for.
const BUSY: &str = "busy";

/// From here on a category is worth a line of the audit log: low.
const LEAST_SEVERITY: Severity = Severity::new(2);

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
    const ALL: [Self; 8] = [
        Self::Screen,
        Self::Analyze,
        Self::AnalyzeImage,
        Self::ShieldPrompt,
        Self::DetectProtectedText,
        Self::DetectProtectedCode,
        Self::ReadBlocklist,
        Self::ChangeBlocklist,
    ];

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

/// Has the counters there before anything is counted: a rate does not see how a series begins.
pub(crate) fn count_from_zero() {
    for call in Call::ALL.map(Call::as_str) {
        for code in ["ok", ErrorCode::Internal.as_str(), BUSY, CANCELLED] {
            metrics::counter!("content_safety_requests_total", "call" => call, "code" => code)
                .increment(0);
        }
    }
    for direction in [Direction::Prompt, Direction::Completion].map(Direction::as_str) {
        for outcome in [BLOCKED, WOULD_BLOCK, PASSED] {
            let labels = [("direction", direction), ("outcome", outcome)];
            metrics::counter!("content_safety_verdicts_total", &labels).increment(0);
        }
    }
}

/// The word for an error.
fn word(error: &SafetyError) -> &'static str {
    let busy = matches!(error, SafetyError::Busy(OnnxError::Overloaded { .. }));
    if busy { BUSY } else { error.code().as_str() }
}

/// What a verdict comes to.
const BLOCKED: &str = "blocked";
const WOULD_BLOCK: &str = "would_block";
const PASSED: &str = "passed";

/// A call that is being answered; dropping it unanswered says that its caller has gone.
#[derive(Debug)]
pub(crate) struct Asked {
    span: tracing::Span,
    call: &'static str,
    started: Instant,
    code: &'static str,
}

impl Asked {
    /// A call has come, in the current span.
    pub(crate) fn begin(call: Call) -> Self {
        let call = call.as_str();
        metrics::gauge!("content_safety_in_flight_requests", "call" => call).increment(1.0);
        Self { span: tracing::Span::current(), call, started: Instant::now(), code: CANCELLED }
    }

    /// It has been answered.
    pub(crate) fn answered<T>(mut self, outcome: &Result<T, SafetyError>) {
        self.code = match outcome {
            Ok(_) => "ok",
            Err(error) => word(error),
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

/// A policy has spoken. Whatever was found is an event of the target `audit`: what, how bad, where, by which models and
/// thresholds, and what came of it.
pub(crate) fn judged(policy: &str, direction: Direction, verdict: &Verdict, version: &str) {
    let direction = direction.as_str();
    let outcome = match (verdict.blocked, verdict.shadow) {
        (true, false) => BLOCKED,
        (true, true) => WOULD_BLOCK,
        (false, _) => PASSED,
    };
    let labels = [("direction", direction), ("outcome", outcome)];
    metrics::counter!("content_safety_verdicts_total", &labels).increment(1);
    let mut findings = findings(verdict);
    for reason in findings.iter().filter(|finding| finding.filtered && !verdict.shadow) {
        let labels = [("direction", direction), ("reason", reason.name)];
        metrics::counter!("content_safety_filtered_total", &labels).increment(1);
    }
    findings.retain(|finding| finding.found);
    if findings.is_empty() {
        return;
    }
    let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let findings = shown.join(" ");
    tracing::info!(target: "audit", policy, direction, outcome, findings, version, "content was judged");
}

/// A part of a verdict, as the log shows it.
struct Finding<'a> {
    name: &'static str,
    /// Of a category; else what was found.
    detail: Detail<'a>,
    span: Option<Span>,
    filtered: bool,
    /// Whether it is worth a line: not safe.
    found: bool,
}

enum Detail<'a> {
    Harm(Grade),
    Attack(Attack),
    Item(&'a Hit),
}

fn findings(verdict: &Verdict) -> Vec<Finding<'_>> {
    let Verdict { blocked: _, shadow: _, categories, jailbreak, indirect_attack, blocklists } =
        verdict;
    let harms = categories.iter().map(|(category, judged)| Finding {
        name: category.as_str(),
        detail: Detail::Harm(judged.found),
        span: judged.found.span,
        filtered: judged.filtered,
        found: judged.found.severity >= LEAST_SEVERITY,
    });
    let attacks = [("jailbreak", jailbreak), ("indirect_attack", indirect_attack)];
    let attacks = attacks.into_iter().filter_map(|(name, judged)| {
        judged.as_ref().map(|judged| Finding {
            name,
            detail: Detail::Attack(judged.found),
            span: judged.found.span,
            filtered: judged.filtered,
            found: judged.found.detected,
        })
    });
    let hits = blocklists.iter().flatten().map(|judged| Finding {
        name: "blocklist",
        detail: Detail::Item(&judged.found),
        span: None,
        filtered: judged.filtered,
        found: true,
    });
    harms.chain(attacks).chain(hits).collect()
}

impl fmt::Display for Finding<'_> {
    /// `violence:severity=6,score=0.913,segment=0,span=12-80,filtered`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail {
            Detail::Harm(Grade { severity, score, .. }) => {
                write!(f, "{}:severity={},score={score:.3}", self.name, severity.value())?;
            }
            Detail::Attack(Attack { score, .. }) => write!(f, "{}:score={score:.3}", self.name)?,
            // The names that the operator gave, never the words.
            Detail::Item(Hit { list, id, text: _ }) => {
                write!(f, "{}:list={list},item={id}", self.name)?;
            }
        }
        if let Some(Span { segment, begin, end }) = self.span {
            write!(f, ",segment={segment},span={begin}-{end}")?;
        }
        if self.filtered { f.write_str(",filtered") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::category::Category;
    use crate::policy::Judged;

    #[test]
    fn a_finding_is_written_with_its_place_and_without_a_word_of_the_text() {
        let span = Some(Span { segment: 1, begin: 12, end: 80 });
        let grade = Grade { severity: Severity::new(6), score: 0.9134, span };
        let hit = Hit { list: "names".into(), id: "7".into(), text: "falcon".into() };
        let verdict = Verdict {
            blocked: true,
            shadow: false,
            categories: vec![(Category::Violence, Judged { found: grade, filtered: true })],
            jailbreak: Some(Judged {
                found: Attack { detected: true, score: 1.0, span: None },
                filtered: false,
            }),
            indirect_attack: None,
            blocklists: Some(vec![Judged { found: hit, filtered: true }]),
        };
        let written: Vec<String> = findings(&verdict).iter().map(ToString::to_string).collect();
        assert_eq!(
            written,
            [
                "violence:severity=6,score=0.913,segment=1,span=12-80,filtered",
                "jailbreak:score=1.000",
                "blocklist:list=names,item=7,filtered",
            ]
        );
    }
}
