//! Spans of one request over all services: where they join, what is exported, what is written on them.
//!
//! Separate so that nobody else names OpenTelemetry. Spans that only traces show are of level `debug`: where no collector is
//! configured nobody wants them, and they cost a comparison. The invariant: nothing that a caller wrote is on a span unless
//! `keeps_content` says so.

use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{Status, TraceContextExt as _};
use opentelemetry::{SpanId, TraceId};
use std::sync::atomic::{AtomicBool, Ordering};
use tonic::metadata::{MetadataKey, MetadataMap};
use tracing::{Level, Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

pub use opentelemetry::{Array, KeyValue, StringValue, Value};

/// The crates whose spans of level `debug` are exported too.
const OURS: [&str; 6] = ["chassis", "edge", "chat", "embedding", "content_safety", "onnx"];
/// What kind of error ended the operation of a span, by OpenTelemetry's conventions.
const ERROR_TYPE: &str = "error.type";

/// Whether spans carry what was asked and answered: `telemetry.trace_content` of this process.
static CONTENT: AtomicBool = AtomicBool::new(false);

pub(super) fn keep_content(keep: bool) {
    CONTENT.store(keep, Ordering::Relaxed);
}

/// Whether spans may carry what was asked and answered.
#[must_use]
pub fn keeps_content() -> bool {
    CONTENT.load(Ordering::Relaxed)
}

/// Whether a span or a line belongs into traces.
pub(super) fn wanted(metadata: &Metadata<'_>) -> bool {
    let ours = || OURS.contains(&metadata.target().split("::").next().unwrap_or_default());
    *metadata.level() <= Level::INFO
        || (metadata.is_span() && *metadata.level() <= Level::DEBUG && ours())
}

/// Makes `span` a child of the W3C trace context in `headers`, if there is one. Call it before the span is entered.
pub fn continue_trace(span: &Span, headers: &http::HeaderMap) {
    let parent = opentelemetry::global::get_text_map_propagator(|p| p.extract(&Headers(headers)));
    // Fails only where no tracer is installed, and then there is nothing to link.
    let _unlinked = span.set_parent(parent);
}

/// Writes the context of the current span into the metadata of a call.
pub(crate) fn inject(metadata: &mut MetadataMap) {
    let context = Span::current().context();
    opentelemetry::global::get_text_map_propagator(|p| {
        p.inject_context(&context, &mut Outgoing(metadata));
    });
}

/// The context of the current span for a request to a server elsewhere, as W3C's `traceparent` and `tracestate`; empty where
/// nothing is traced.
#[must_use]
pub fn headers() -> http::HeaderMap {
    let mut metadata = MetadataMap::new();
    inject(&mut metadata);
    metadata.into_headers()
}

/// Writes an attribute on `span`; free where nobody exports it.
pub fn attribute(span: &Span, key: &'static str, value: impl Into<Value>) {
    if !span.is_disabled() {
        span.set_attribute(key, value);
    }
}

/// Notes on `span` that something happened now.
pub fn event(span: &Span, name: &'static str) {
    if !span.is_disabled() {
        span.add_event(name, Vec::new());
    }
}

/// Notes on `span` that its operation failed; `kind` is a word of ours, not what a caller or a server said.
pub fn failed(span: &Span, kind: &'static str) {
    if !span.is_disabled() {
        span.set_attribute(ERROR_TYPE, kind);
        span.set_status(Status::error(kind));
    }
}

/// A list of words as the value of an attribute.
#[must_use]
pub fn words(words: &[&'static str]) -> Value {
    Value::Array(Array::String(words.iter().map(|word| StringValue::from(*word)).collect()))
}

/// The ids of the current span, where it is exported.
pub(super) fn exported_ids() -> Option<(TraceId, SpanId)> {
    let context = Span::current().context();
    let span = context.span();
    let ids = span.span_context();
    ids.is_sampled().then(|| (ids.trace_id(), ids.span_id()))
}

struct Headers<'a>(&'a http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|v| v.to_str().ok())
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct Outgoing<'a>(&'a mut MetadataMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        // A context without a state of vendors is written with an empty one, which says nothing.
        if value.is_empty() {
            return;
        }
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn headers_continue_the_trace_of_the_current_span_and_are_none_without_one() {
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        assert!(headers().is_empty(), "nothing is traced");
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            assert!(headers().is_empty(), "there is no span");
            let parent = [("traceparent", PARENT), ("tracestate", "vendor=1")];
            let parent = parent.map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()));
            let span = tracing::info_span!("request");
            continue_trace(&span, &parent.into_iter().collect());
            let sent = span.in_scope(headers);
            let written = sent["traceparent"].to_str().unwrap();
            assert_eq!(written[..36], PARENT[..36], "the trace stays");
            assert_ne!(written, PARENT, "the span is the caller now");
            assert_eq!(sent["tracestate"], "vendor=1");
            let begun_here = tracing::info_span!("request").in_scope(headers);
            assert_eq!(begun_here.keys().collect::<Vec<_>>(), ["traceparent"]);
        });
    }
}
