//! Lines of JSON with the ids of the trace they belong to, at their beginning.
//!
//! Separate because the formatter of the library knows nothing of traces. Lines outside of a trace, or where none is exported,
//! are its own, unchanged.

use opentelemetry::trace::TraceContextExt as _;
use std::fmt;
use tracing::{Event, Subscriber, dispatcher};
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
        let Some(ids) = ids(context, event) else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let rest = line.strip_prefix('{').unwrap_or(&line);
        writer.write_char('{')?;
        writer.write_str(&ids)?;
        writer.write_str(rest)
    }
}

/// `"trace_id":"…","span_id":"…",` of the span that `event` is in.
fn ids<S, N>(context: &FmtContext<'_, S, N>, event: &Event<'_>) -> Option<String>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let span =
        event.parent().cloned().or_else(|| context.lookup_current().map(|span| span.id()))?;
    let traced = dispatcher::get_default(|d| tracing_opentelemetry::get_otel_context(&span, d))?;
    let span = traced.span();
    let ids = span.span_context();
    ids.is_valid()
        .then(|| format!("\"trace_id\":\"{}\",\"span_id\":\"{}\",", ids.trace_id(), ids.span_id()))
}
