//! Logs, traces and metrics of a process, set up once by its `main`.
//!
//! Logs go to stderr; metrics are scraped from the admin port. Every request has a trace, whose id joins the lines of all
//! services; its spans leave by OTLP only where an endpoint is configured. What is logged is chosen by `telemetry.log` alone and
//! what is traced by `trace::wanted` alone, so quieter logs lose no span.

mod exemplars;
mod export;
mod exposition;
mod lines;
pub mod trace;
mod words;
#[cfg(test)]
mod written;

pub use exposition::Exposition;

use crate::tls::{ClientTlsConfig, Connector};
use crate::{Problems, grpc};
use anyhow::Context as _;
use exemplars::{Exemplars, Recording};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, Value};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{
    EnvResourceDetector, ResourceDetector, SdkProvidedResourceDetector, TelemetryResourceDetector,
};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use serde::{Deserialize, Deserializer};
use std::io::{self, IsTerminal as _};
use std::sync::{Arc, OnceLock};
use tracing::Metadata;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

/// Upper bounds in seconds of the latency histograms; 1 ms to 2 minutes.
/// Among them are the thresholds of alerts, for a quantile is as exact as its bucket is narrow.
const LATENCY_BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];
/// Upper bounds of histograms that have others, by the end of their names. Those of `gen_ai_*` are what OpenTelemetry's
/// conventions for generative AI metrics say.
const OTHER_BUCKETS: [(&str, &[f64]); 6] = [
    ("_rows", &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
    ("gen_ai_client_operation_duration_seconds", &OPERATION_BUCKETS),
    ("gen_ai_server_request_duration_seconds", &OPERATION_BUCKETS),
    (
        "gen_ai_server_time_to_first_token_seconds",
        &[
            0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
            10.0,
        ],
    ),
    (
        "gen_ai_server_time_per_output_token_seconds",
        &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5],
    ),
    (
        "gen_ai_client_token_usage",
        &[
            1.0,
            4.0,
            16.0,
            64.0,
            256.0,
            1024.0,
            4096.0,
            16384.0,
            65536.0,
            262_144.0,
            1_048_576.0,
            4_194_304.0,
            16_777_216.0,
            67_108_864.0,
        ],
    ),
];
const OPERATION_BUCKETS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// TLS towards the collector, within the table of a service.
const OTLP_TLS: &str = "service.telemetry.otlp_tls";

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
    /// TLS towards an endpoint that begins with `https`.
    pub otlp_tls: ClientTlsConfig,
    /// Part of the traces that begin here which is kept, 0 to 1; one that a caller began is kept where the caller keeps it.
    #[serde(deserialize_with = "share")]
    pub trace_share: f64,
    /// Whether spans carry what was asked and answered.
    pub trace_content: bool,
}

fn share<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(value)?;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err(serde::de::Error::custom("expected a number from 0.0 to 1.0"))
    }
}

impl TelemetryConfig {
    /// Notes what cannot be.
    pub(crate) fn check(&self, problems: &mut Problems) {
        if let Err(error) = EnvFilter::try_new(&self.log) {
            let message = format!(
                "`{}` is not a filter such as `info` or `info,edge=debug`: {error}",
                self.log
            );
            problems.add("service.telemetry.log", message);
        }
        let url = self.otlp_endpoint.parse::<http::Uri>();
        let url = url.ok().filter(|url| matches!(url.scheme_str(), Some("http" | "https")));
        let secure = url.as_ref().is_some_and(|url| url.scheme_str() == Some("https"));
        if !self.otlp_endpoint.is_empty() && url.is_none() {
            let message = "is not a URL such as http://collector:4317";
            problems.add("service.telemetry.otlp_endpoint", message);
        } else if secure && !self.otlp_tls.is_on() {
            let message = "begins with https; say in `service.telemetry.otlp_tls.ca_file` who signs the collector's certificate \
                (the system's list is often /etc/ssl/certs/ca-certificates.crt)";
            problems.add("service.telemetry.otlp_endpoint", message);
        } else if let Err(message) = grpc::check_url(&self.otlp_endpoint)
            && secure
        {
            problems.add("service.telemetry.otlp_endpoint", message);
        }
        if self.otlp_tls.is_on() && !secure {
            let message = "is set, but `otlp_endpoint` does not begin with https";
            problems.add(&format!("{OTLP_TLS}.ca_file"), message);
        }
        self.otlp_tls.check(OTLP_TLS, problems);
    }

    /// Notes files that cannot be used.
    pub(crate) fn check_files(&self, problems: &mut Problems) {
        self.otlp_tls.check_files(OTLP_TLS, problems);
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, with the ids of its trace.
    Json,
}

/// Keeps the exporters alive; `flush` before the process ends.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Exposition,
    traces: SdkTracerProvider,
}

/// The filter of the process-wide logger.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Lets through what `filter` says from now on; nothing where no logger is installed.
pub(crate) fn set_filter(filter: &str) {
    if let (Ok(filter), Some(handle)) = (EnvFilter::try_new(filter), FILTER.get()) {
        // Fails only when the logger is gone.
        let _gone = handle.reload(filter);
    }
}

/// Installs the process-wide logger, tracer and metrics recorder. Called within a runtime, which the export of traces uses.
///
/// # Errors
/// When the filter does not parse, the OTLP endpoint is not a URL, or another one is installed already.
pub fn init(service: &'static str, config: &TelemetryConfig) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(&config.log)
        .with_context(|| format!("`telemetry.log`: `{}` is not a log filter", config.log))?;
    let (filter, handle) = reload::Layer::new(filter);
    let to_stderr = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match config.log_format {
        LogFormat::Text => to_stderr.with_filter(filter).boxed(),
        LogFormat::Json => {
            // Each span once; the list has the id of the request at every level of `telemetry.log`.
            let json = to_stderr.json().with_current_span(false);
            json.map_event_format(lines::WithIds).with_filter(filter).boxed()
        }
    };
    let exported = !config.otlp_endpoint.is_empty();
    trace::set_up(exported, config.trace_content);
    let traces = tracer(service, config)?;
    let (wanted, most): (fn(&Metadata<'_>) -> bool, _) = if exported {
        (trace::wanted, LevelFilter::DEBUG)
    } else {
        (trace::has_context, LevelFilter::INFO)
    };
    let spans = tracing_opentelemetry::layer()
        .with_tracer(traces.tracer("koine"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(FilterFn::new(wanted).with_max_level_hint(most))
        .boxed();
    tracing_subscriber::registry()
        .with(vec![lines, spans])
        .try_init()
        .context("a logger is installed already")?;
    // The first of this process, as the logger is.
    let _first = FILTER.set(handle);
    let metrics = recorder(exported)?;
    words::describe();
    export::count_from_zero();
    Ok(Telemetry { metrics, traces })
}

/// Installs the recorder of metrics; with exemplars where there are traces to point to.
fn recorder(traced: bool) -> anyhow::Result<Exposition> {
    let mut builder = PrometheusBuilder::new().set_buckets(&LATENCY_BUCKETS)?;
    for (name, bounds) in OTHER_BUCKETS {
        builder = builder.set_buckets_for_metric(Matcher::Suffix(name.to_owned()), bounds)?;
    }
    let recorder = builder.build_recorder();
    let exemplars = traced.then(|| Arc::new(Exemplars::new(buckets_of)));
    let exposition = Exposition::new(recorder.handle(), exemplars.clone());
    metrics::set_global_recorder(Recording::new(recorder, exemplars))
        .map_err(|_| anyhow::anyhow!("a metrics recorder is installed already"))?;
    Ok(exposition)
}

/// The upper bounds of the histogram `name`.
fn buckets_of(name: &str) -> &'static [f64] {
    let other = OTHER_BUCKETS.iter().find(|(end, _)| name.ends_with(end));
    other.map_or(&LATENCY_BUCKETS, |(_, bounds)| bounds)
}

/// The maker of spans. Without an endpoint it only hands on what a caller began: ids cost little, and nothing is kept.
fn tracer(service: &'static str, config: &TelemetryConfig) -> anyhow::Result<SdkTracerProvider> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let builder = SdkTracerProvider::builder();
    if config.otlp_endpoint.is_empty() {
        let never = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        return Ok(builder.with_sampler(never).build());
    }
    let begun_here = Sampler::TraceIdRatioBased(config.trace_share);
    let builder = builder
        .with_span_processor(export::Bounded::new(exporter(service, config)?))
        .with_sampler(Sampler::ParentBased(Box::new(begun_here)))
        .with_resource(resource(service));
    Ok(builder.build())
}

fn exporter(service: &'static str, config: &TelemetryConfig) -> anyhow::Result<SpanExporter> {
    let endpoint = &config.otlp_endpoint;
    let exporter = SpanExporter::builder().with_tonic();
    let exporter = match Connector::once((service, OTLP_TLS), &config.otlp_tls)? {
        None => exporter.with_endpoint(endpoint),
        // By our own TLS: that of tonic is not compiled in.
        Some(tls) => {
            let channel = grpc::secure_channel(endpoint, (tls, OTLP_TLS));
            exporter.with_channel(channel.map_err(anyhow::Error::msg)?)
        }
    };
    exporter
        .build()
        .with_context(|| format!("`telemetry.otlp_endpoint`: cannot export to `{endpoint}`"))
}

/// Who says it: which process of which service in which version, and what `OTEL_RESOURCE_ATTRIBUTES` adds or says otherwise.
fn resource(service: &'static str) -> Resource {
    let instance = uuid::Uuid::new_v4().to_string();
    let own: [(&str, Value); 2] = [
        ("service.version", env!("CARGO_PKG_VERSION").into()),
        ("service.instance.id", instance.into()),
    ];
    let detectors: [Box<dyn ResourceDetector>; 3] = [
        Box::new(SdkProvidedResourceDetector),
        Box::new(TelemetryResourceDetector),
        Box::new(EnvResourceDetector::new()),
    ];
    Resource::builder_empty()
        .with_attributes(own.map(|(key, value)| KeyValue::new(key, value)))
        .with_detectors(&detectors)
        .with_service_name(format!("koine-{}", service.replace('_', "-")))
        .build()
}

impl Telemetry {
    /// What `/metrics` renders.
    #[must_use]
    pub fn metrics(&self) -> Exposition {
        self.metrics.clone()
    }

    /// Sends what is still buffered; waits for a collector that does not answer for 5 seconds at most.
    pub fn flush(&self) {
        if let Err(error) = self.traces.shutdown() {
            tracing::warn!(%error, "traces could not be flushed");
        }
    }
}
