//! Logs, traces and metrics of a process, set up once by its `main`.
//!
//! Logs go to stderr; traces leave by OTLP only where an endpoint is configured; metrics are scraped from the admin port.

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::Deserialize;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

/// Upper bounds in seconds of the latency histograms; 1 ms to 2 minutes.
const LATENCY_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];
/// Upper bounds of histograms that count rows of a batch.
const ROW_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// Ending of their names.
const ROWS: &str = "_rows";

/// The `telemetry` table of a service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Filter in the syntax of `tracing` (`info`, `edge=debug,info`).
    pub log: String,
    /// Lines for people or JSON for machines.
    pub log_format: LogFormat,
    /// Where traces go by OTLP over gRPC (`http://collector:4317`); empty means nowhere.
    pub otlp_endpoint: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Keeps the exporters alive; `flush` before the process ends.
#[derive(Debug)]
pub struct Telemetry {
    metrics: PrometheusHandle,
    traces: Option<SdkTracerProvider>,
}

/// Installs the process-wide logger, tracer and metrics recorder.
///
/// # Errors
/// When the filter does not parse, the OTLP endpoint is not a URL, or another one is installed already.
pub fn init(service: &'static str, config: &TelemetryConfig) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(&config.log)
        .with_context(|| format!("`telemetry.log`: `{}` is not a log filter", config.log))?;
    let lines = match config.log_format {
        LogFormat::Text => fmt::layer().with_writer(std::io::stderr).boxed(),
        LogFormat::Json => fmt::layer().with_writer(std::io::stderr).json().boxed(),
    };
    let traces = tracer(service, &config.otlp_endpoint)?;
    let spans =
        traces.as_ref().map(|t| tracing_opentelemetry::layer().with_tracer(t.tracer("koine")));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(spans)
        .try_init()
        .context("a logger is installed already")?;
    let metrics = PrometheusBuilder::new()
        .set_buckets(&LATENCY_BUCKETS)
        .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix(ROWS.to_owned()), &ROW_BUCKETS))
        .and_then(PrometheusBuilder::install_recorder)
        .context("a metrics recorder is installed already")?;
    Ok(Telemetry { metrics, traces })
}

fn tracer(service: &'static str, endpoint: &str) -> anyhow::Result<Option<SdkTracerProvider>> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    if endpoint.is_empty() {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .with_context(|| format!("`telemetry.otlp_endpoint`: cannot export to `{endpoint}`"))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(format!("koine-{service}")).build())
        .build();
    Ok(Some(provider))
}

/// Makes `span` a child of the W3C trace context in `headers`, if there is one. Call it before the span is entered.
pub fn continue_trace(span: &Span, headers: &http::HeaderMap) {
    let parent = opentelemetry::global::get_text_map_propagator(|p| p.extract(&Headers(headers)));
    // Fails only where no tracer is installed, and then there is nothing to link.
    let _unlinked = span.set_parent(parent);
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

impl Telemetry {
    /// What `/metrics` renders.
    #[must_use]
    pub fn metrics(&self) -> PrometheusHandle {
        self.metrics.clone()
    }

    /// Sends what is still buffered.
    pub fn flush(&self) {
        if let Some(Err(error)) = self.traces.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!(%error, "traces could not be flushed");
        }
    }
}
