//! Lines of JSON with the ids of the trace they belong to, at their beginning.
//!
//! Separate because the formatter of the library knows nothing of traces. Lines outside of a trace are its own, unchanged.

use super::trace;
use std::fmt;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// A formatter of JSON objects, and the two ids before what it writes.
pub(super) struct WithIds<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for WithIds<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(ids) = trace::current() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let (trace, span, rest) =
            (ids.trace_id(), ids.span_id(), line.strip_prefix('{').unwrap_or(&line));
        write!(writer, "{{\"trace_id\":\"{trace}\",\"span_id\":\"{span}\",{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::written::Lines;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_subscriber::filter::{FilterFn, LevelFilter};
    use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    /// What a request at a process without a collector writes, at every level of its log.
    #[test]
    fn lines_carry_the_trace_of_their_request_though_nothing_is_exported() {
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let never = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        let provider = SdkTracerProvider::builder().with_sampler(never).build();
        let wanted = FilterFn::new(trace::has_context).with_max_level_hint(LevelFilter::INFO);
        let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let written = Lines::default();
        let json = tracing_subscriber::fmt::layer().with_writer(written.clone()).json();
        let lines = json.with_current_span(false).map_event_format(WithIds);
        let layers = tracing_subscriber::registry().with(spans.with_filter(wanted)).with(lines);
        tracing::subscriber::with_default(layers, || {
            tracing::info!("outside");
            let request = tracing::info_span!("request", id = "r1");
            let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
            let headers = [("traceparent".parse().unwrap(), parent.parse().unwrap())];
            trace::continue_trace(&request, &headers.into_iter().collect());
            request.in_scope(|| {
                tracing::info!("within");
                tracing::debug_span!("step").in_scope(|| tracing::debug!("deeper"));
            });
            tracing::info_span!("request").in_scope(|| tracing::info!("begun here"));
        });
        let lines = written.take();
        assert!(!lines[0].contains("trace_id"), "{}", lines[0]);
        for line in &lines[1..3] {
            assert!(
                line.starts_with(&format!("{{\"trace_id\":\"{TRACE}\",\"span_id\":\"")),
                "{line}"
            );
            assert_eq!(line.matches("\"r1\"").count(), 1, "each span once: {line}");
        }
        assert!(
            lines[3].starts_with("{\"trace_id\":\"") && !lines[3].contains(TRACE),
            "{}",
            lines[3]
        );
    }
}
