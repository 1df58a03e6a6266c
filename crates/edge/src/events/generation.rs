//! One call of a model, as OpenTelemetry's conventions for generative AI describe it: a span and two metrics.
//!
//! Separate from the record of the request, because a request may end without a call, and because these names are not ours. It
//! writes itself when the call ends, whatever ended it. Content is noted only where configuration says so, and cut.

use super::timing::Step;
use super::{CANCELLED, Record};
use crate::cache::Source;
use crate::fallback::Candidate;
use crate::pieces::{Piece, Usage};
use crate::translate::content::Asked;
use api_types::rest::chat_completions::FinishReason;
use api_types::rpc::chat::Sampling;
use api_types::{ErrorCode, Fault};
use chassis::telemetry::trace;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tracing::Span;

/// Who provides the models, where conventions ask for a provider.
pub(super) const PROVIDER: &str = "koine";
/// More of one text is not written on a span: collectors refuse what is too large.
pub const LONGEST_CONTENT: usize = 16 * 1024;

/// What a model is asked to do, by its name in the conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Answering a conversation.
    Chat,
    /// Continuing prompts.
    TextCompletion,
    /// Embedding texts or images.
    Embeddings,
}

impl Operation {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::Embeddings => "embeddings",
        }
    }
}

/// A call of a model; dropping it says that it has ended.
#[derive(Debug)]
pub struct Generation {
    operation: Operation,
    model: String,
    span: Span,
    /// Of the request; a call that several share may outlive the first.
    record: Weak<Record>,
    /// How the answer came about, where the cache had a part in it.
    source: Option<Source>,
    began: Instant,
    /// When the service began with it.
    begun: Option<Instant>,
    first: Option<Duration>,
    finished: Vec<&'static str>,
    /// Steps of the answer that came.
    pieces: u32,
    usage: Usage,
    failed: Option<ErrorCode>,
    complete: bool,
    /// What was answered, by choice; only where content is kept.
    said: Option<BTreeMap<u32, String>>,
}

impl Generation {
    /// The model of a deployment is asked now.
    pub fn begin<T: Asked>(asked: &Candidate<T>, record: &Arc<Record>) -> Self {
        let (operation, model) = (T::OPERATION, asked.deployment.model.as_str());
        let name = operation.as_str();
        let span = tracing::debug_span!(
            "generation",
            otel.name = format!("{name} {model}"),
            otel.kind = "client",
            gen_ai.operation.name = name,
            gen_ai.provider.name = PROVIDER,
            gen_ai.request.model = model,
        );
        if let Some(sampling) = asked.request.sampling() {
            request(&span, sampling);
        }
        if let Some((id, stream)) = (!span.is_disabled()).then(|| record.answer()).flatten() {
            trace::attribute(&span, "gen_ai.response.id", id);
            if stream {
                trace::attribute(&span, "gen_ai.request.stream", true);
            }
        }
        let keeps = trace::keeps_content();
        if keeps {
            trace::attribute(&span, "gen_ai.input.messages", asked.request.content());
        }
        Self {
            operation,
            model: model.to_owned(),
            span,
            record: Arc::downgrade(record),
            source: None,
            began: Instant::now(),
            begun: None,
            first: None,
            finished: Vec::new(),
            pieces: 0,
            usage: Usage::default(),
            failed: None,
            complete: false,
            said: keeps.then(BTreeMap::new),
        }
    }

    /// The span, within which the service is called.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// The service has begun to answer: the request has left its queue.
    pub fn begun(&mut self) {
        self.begun = Some(Instant::now());
        if let Some(record) = self.record.upgrade() {
            record.took(Step::Queue, self.began.elapsed());
        }
    }

    /// The service has answered at once and wholly, `began.elapsed()` after it was asked.
    pub fn answered(&mut self) {
        self.begun = Some(self.began);
        if let Some(record) = self.record.upgrade() {
            record.called(self.began.elapsed());
        }
    }

    /// The cache had a part in the answer.
    pub fn cached(&mut self, source: Source) {
        trace::attribute(&self.span, "koine.cache", source.as_str());
        self.source = Some(source);
    }

    /// Takes note of a step of the answer.
    pub fn observe(&mut self, piece: &Result<Piece, Fault>) {
        match piece {
            Ok(Piece::Text(text)) => self.piece(text.choice, &text.text),
            Ok(Piece::Reasoning { choice, .. }) => self.piece(*choice, ""),
            Ok(Piece::ToolCall(call)) => self.piece(call.choice, &call.arguments),
            Ok(Piece::Finished { reason, .. }) => self.finished.push(finish_name(*reason)),
            Ok(Piece::Usage(usage)) => self.spent(*usage),
            Ok(Piece::Started(_) | Piece::Vetted { .. }) => {}
            Err(fault) => self.failed(fault),
        }
        if let Some((begun, record)) = self.begun.zip(self.record.upgrade()) {
            record.has_taken(Step::Model, begun.elapsed());
        }
    }

    /// It is complete, and has cost so many tokens.
    pub const fn spent(&mut self, usage: Usage) {
        self.usage = usage;
        self.complete = true;
    }

    /// It failed.
    pub const fn failed(&mut self, fault: &Fault) {
        self.failed = Some(fault.code);
    }

    fn piece(&mut self, choice: u32, text: &str) {
        self.pieces = self.pieces.saturating_add(1);
        if self.first.is_none() {
            self.first = Some(self.began.elapsed());
            trace::event(&self.span, "first chunk");
        }
        if let Some(said) = &mut self.said {
            let said = said.entry(choice).or_default();
            if said.len() < LONGEST_CONTENT {
                said.push_str(text);
            }
        }
    }

    /// Why it ended before its end; none where it did not.
    fn error(&self) -> Option<&'static str> {
        match self.failed {
            Some(code) => Some(code.as_str()),
            None if self.complete => None,
            // Dropped: for a verdict of content safety, or by a client that left.
            None if self.record.upgrade().is_some_and(|record| record.is_blocked()) => {
                Some(ErrorCode::ContentFiltered.as_str())
            }
            None => Some(CANCELLED),
        }
    }

    /// Where the time went of a call that ended before its end: nothing else will say so.
    fn cut_short(&self) {
        let Some(record) = self.record.upgrade().filter(|_| !self.complete) else { return };
        match (self.begun, self.operation) {
            (Some(_), Operation::Embeddings) => {}
            (Some(begun), Operation::Chat | Operation::TextCompletion) => {
                record.has_taken(Step::Model, begun.elapsed());
            }
            (None, Operation::Embeddings) => record.took(Step::Model, self.began.elapsed()),
            (None, Operation::Chat | Operation::TextCompletion) => {
                record.took(Step::Queue, self.began.elapsed());
            }
        }
    }

    fn describe(&self) {
        let span = &self.span;
        let Usage { prompt, completion, cached, reasoning } = self.usage;
        if self.complete {
            trace::attribute(span, "gen_ai.response.model", self.model.clone());
            trace::attribute(span, "gen_ai.usage.input_tokens", i64::from(prompt));
        }
        // Of what broke off, what was seen: a step is about a token.
        let output = if self.complete { completion } else { self.pieces };
        if self.operation != Operation::Embeddings && (self.complete || output > 0) {
            trace::attribute(span, "gen_ai.usage.output_tokens", i64::from(output));
        }
        if cached > 0 {
            trace::attribute(span, "gen_ai.usage.cache_read.input_tokens", i64::from(cached));
        }
        if reasoning > 0 {
            trace::attribute(span, "gen_ai.usage.reasoning.output_tokens", i64::from(reasoning));
        }
        if !self.finished.is_empty() {
            trace::attribute(span, "gen_ai.response.finish_reasons", trace::words(&self.finished));
        }
        if let Some(first) = self.first {
            trace::attribute(span, "gen_ai.response.time_to_first_chunk", first.as_secs_f64());
        }
        if let Some(said) = &self.said {
            let message = |(choice, text): (usize, &String)| {
                let reason = self.finished.get(choice).copied().unwrap_or_default();
                let part = json!({"type": "text", "content": text});
                json!({"role": "assistant", "parts": [part], "finish_reason": reason})
            };
            let messages: Vec<_> = said.values().enumerate().map(message).collect();
            trace::attribute(span, "gen_ai.output.messages", json!(messages).to_string());
        }
        match (self.error(), self.failed) {
            (Some(kind), Some(_)) => trace::failed(span, kind),
            (Some(kind), None) => trace::cut_short(span, kind),
            (None, _) => {}
        }
    }

    fn measure(&self) {
        let operation = self.operation.as_str();
        metrics::histogram!("gen_ai_client_operation_duration_seconds", "gen_ai_operation_name" => operation,
            "gen_ai_provider_name" => PROVIDER, "gen_ai_request_model" => self.model.clone(),
            "error_type" => self.error().unwrap_or_default())
        .record(self.began.elapsed().as_secs_f64());
        for (kind, tokens) in [("input", self.usage.prompt), ("output", self.usage.completion)] {
            if tokens > 0 {
                metrics::histogram!("gen_ai_client_token_usage", "gen_ai_operation_name" => operation,
                    "gen_ai_provider_name" => PROVIDER, "gen_ai_request_model" => self.model.clone(),
                    "gen_ai_token_type" => kind)
                .record(f64::from(tokens));
            }
        }
    }
}

/// Notes on `span` how the answer is to be sampled, where the caller says it.
fn request(span: &Span, sampling: &Sampling) {
    let Sampling { temperature, top_p, max_tokens, seed, n, .. } = sampling;
    for (key, value) in [
        ("gen_ai.request.temperature", temperature.map(rounded)),
        ("gen_ai.request.top_p", top_p.map(rounded)),
    ] {
        if let Some(value) = value {
            trace::attribute(span, key, value);
        }
    }
    for (key, value) in [
        ("gen_ai.request.max_tokens", max_tokens.map(i64::from)),
        ("gen_ai.request.seed", *seed),
        ("gen_ai.request.choice.count", n.filter(|n| *n != 1).map(i64::from)),
    ] {
        if let Some(value) = value {
            trace::attribute(span, key, value);
        }
    }
}

/// As the caller wrote it: 0.2, not 0.20000000298.
fn rounded(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

const fn finish_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content_filter",
        FinishReason::ToolCalls | FinishReason::FunctionCall => "tool_calls",
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.cut_short();
        if !self.span.is_disabled() {
            self.describe();
        }
        // An answer that was computed for somebody else is no call.
        if matches!(self.source, None | Some(Source::Miss)) {
            let _in_span = self.span.enter();
            self.measure();
        }
    }
}
