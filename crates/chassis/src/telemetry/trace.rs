//! Spans of one request over all services: where they join, what is exported, what is written on them.
//!
//! Separate so that nobody else names OpenTelemetry. Spans that only traces show are of level `debug`: where no collector is
//! configured nobody wants them, and they cost a comparison; those of level `info` have ids all the same, for lines of logs and
//! for the services behind. The invariant: nothing that a caller wrote is on a span unless `keeps_content` says so.

use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{SpanContext, Status, TraceContextExt as _};
use opentelemetry::{Context, SpanId, TraceId};
use std::sync::atomic::{AtomicBool, Ordering};
use tonic::metadata::{MetadataKey, MetadataMap};
use tracing::{Level, Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

pub use opentelemetry::{Array, KeyValue, StringValue, Value};

/// The crates whose spans are traced: libraries have some that are about no request, such as loading a model.
const OURS: [&str; 6] = ["chassis", "edge", "chat", "embedding", "content_safety", "onnx"];
/// What kind of error ended the operation of a span, by OpenTelemetry's conventions.
const ERROR_TYPE: &str = "error.type";

/// Whether spans leave this process: it has a `telemetry.otlp_endpoint`.
static EXPORTED: AtomicBool = AtomicBool::new(false);
/// Whether spans carry what was asked and answered: `telemetry.trace_content` of this process.
static CONTENT: AtomicBool = AtomicBool::new(false);

pub(super) fn set_up(exported: bool, content: bool) {
    EXPORTED.store(exported, Ordering::Relaxed);
    CONTENT.store(exported && content, Ordering::Relaxed);
}

fn exported() -> bool {
    EXPORTED.load(Ordering::Relaxed)
}

/// Whether spans may carry what was asked and answered.
#[must_use]
pub fn keeps_content() -> bool {
    CONTENT.load(Ordering::Relaxed)
}

/// Whether a span or a line belongs into traces that are exported.
pub(super) fn wanted(metadata: &Metadata<'_>) -> bool {
    if metadata.is_span() {
        *metadata.level() <= Level::DEBUG && is_ours(metadata)
    } else {
        *metadata.level() <= Level::INFO
    }
}

/// Whether a span has ids where none is exported.
pub(super) fn has_context(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && *metadata.level() <= Level::INFO && is_ours(metadata)
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    OURS.contains(&metadata.target().split("::").next().unwrap_or_default())
}

/// Makes `span` a child of the W3C trace context in `headers`, if there is one. Call it before the span is entered.
pub fn continue_trace(span: &Span, headers: &http::HeaderMap) {
    let parent = opentelemetry::global::get_text_map_propagator(|p| p.extract(&Headers(headers)));
    // Fails only where no tracer is installed, and then there is nothing to link.
    let _unlinked = span.set_parent(parent);
}

/// Whether `headers` have a W3C trace context.
pub(crate) fn is_continued(headers: &http::HeaderMap) -> bool {
    headers.contains_key("traceparent")
}

/// The ids of the innermost span that is entered; none outside of every trace.
pub(super) fn current() -> Option<SpanContext> {
    let context = Context::current();
    let ids = context.span().span_context().clone();
    ids.is_valid().then_some(ids)
}

/// Writes the context of the current span into the metadata of a call.
pub(crate) fn inject(metadata: &mut MetadataMap) {
    opentelemetry::global::get_text_map_propagator(|p| {
        p.inject_context(&Context::current(), &mut Outgoing(metadata));
    });
}

/// The context of the current span for a request to a server elsewhere, as W3C's `traceparent` and `tracestate`. Empty where
/// nothing is traced; and where the trace is only ours and not exported, for the server would take its ids for word that
/// nobody wants its spans either.
#[must_use]
pub fn headers() -> http::HeaderMap {
    let mut metadata = MetadataMap::new();
    if current().is_some_and(|ids| ids.is_sampled() || exported()) {
        inject(&mut metadata);
    }
    metadata.into_headers()
}

/// Writes an attribute on `span`; free where nobody exports it.
pub fn attribute(span: &Span, key: &'static str, value: impl Into<Value>) {
    if exported() && !span.is_disabled() {
        span.set_attribute(key, value);
    }
}

/// Notes on `span` that something happened now.
pub fn event(span: &Span, name: &'static str) {
    if exported() && !span.is_disabled() {
        span.add_event(name, Vec::new());
    }
}

/// Notes on `span` that its operation failed; `kind` is a word of ours, not what a caller or a server said.
pub fn failed(span: &Span, kind: &'static str) {
    attribute(span, ERROR_TYPE, kind);
    if exported() && !span.is_disabled() {
        span.set_status(Status::error(kind));
    }
}

/// Notes on `span` that its operation ended early, which is no failure of it: nobody waited for the rest.
pub fn cut_short(span: &Span, kind: &'static str) {
    attribute(span, ERROR_TYPE, kind);
}

/// A list of words as the value of an attribute.
#[must_use]
pub fn words(words: &[&'static str]) -> Value {
    Value::Array(Array::String(words.iter().map(|word| StringValue::from(*word)).collect()))
}

/// The ids of the current span, where it is exported.
pub(super) fn exported_ids() -> Option<(TraceId, SpanId)> {
    let ids = current().filter(SpanContext::is_sampled)?;
    Some((ids.trace_id(), ids.span_id()))
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
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt as _;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// Headers as a caller sends them.
    fn from_a_caller() -> http::HeaderMap {
        let parent = [("traceparent", PARENT), ("tracestate", "vendor=1")];
        parent.map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).into_iter().collect()
    }

    #[test]
    fn headers_continue_the_trace_of_a_caller_and_tell_nobody_of_one_that_is_not_exported() {
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        assert!(headers().is_empty(), "nothing is traced");
        let never = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        let provider = SdkTracerProvider::builder().with_sampler(never).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            assert!(headers().is_empty(), "there is no span");
            let span = tracing::info_span!("request");
            continue_trace(&span, &from_a_caller());
            let sent = span.in_scope(headers);
            let written = sent["traceparent"].to_str().unwrap();
            assert_eq!(written[..36], PARENT[..36], "the trace stays");
            assert_ne!(written, PARENT, "the span is the caller now");
            assert_eq!(sent["tracestate"], "vendor=1");
            let (headers, metadata) = tracing::info_span!("request").in_scope(|| {
                let mut metadata = MetadataMap::new();
                inject(&mut metadata);
                (headers(), metadata)
            });
            assert!(headers.is_empty(), "nobody exports it");
            assert!(metadata.contains_key("traceparent"), "but our services write its id");
        });
    }
}
