//! Spans on their way to the collector: how many may wait for it, and what becomes known where they do not arrive.
//!
//! Separate because the library writes a line for each batch that fails and counts nothing. A collector that is away costs its
//! spans and nothing else; of them a counter tells at once, and a line when it begins, when it ends, and once a minute meanwhile.

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Spans that may wait; the default of OpenTelemetry's specification.
const QUEUE: usize = 2048;
/// Longest silence about spans that are being lost.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Why spans are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The collector did not take them.
    Collector,
    /// More were waiting for it than may.
    Queue,
}

impl Why {
    const ALL: [Self; 2] = [Self::Collector, Self::Queue];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Collector => "collector",
            Self::Queue => "queue",
        }
    }
}

fn lost(why: Why, spans: usize) {
    metrics::counter!("telemetry_spans_lost_total", "why" => why.as_str())
        .increment(u64::try_from(spans).unwrap_or(u64::MAX));
}

/// Has the counter there before anything is lost.
pub(super) fn count_from_zero() {
    Why::ALL.into_iter().for_each(|why| lost(why, 0));
}

/// Takes spans that end, as many as may wait.
#[derive(Debug)]
pub(super) struct Bounded {
    inner: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    state: Arc<Mutex<State>>,
}

impl Bounded {
    pub(super) fn new(exporter: impl SpanExporter + 'static) -> Self {
        let (waiting, state) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<State>>::default());
        let watched =
            Watched { inner: exporter, waiting: Arc::clone(&waiting), state: Arc::clone(&state) };
        // Of the same size, so that the library's own queue never drops what was counted as waiting.
        let batches = BatchConfigBuilder::default().with_max_queue_size(QUEUE).build();
        let inner = BatchSpanProcessor::builder(watched).with_batch_config(batches).build();
        Self { inner, waiting, state }
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let room = |waiting| (waiting < QUEUE).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok() {
            self.inner.on_end(span);
        } else {
            lost(Why::Queue, 1);
            locked(&self.state).unsaid += 1;
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// How the collector has fared.
#[derive(Debug, Default)]
struct State {
    /// Spans lost that no line has told of.
    unsaid: usize,
    /// When a line told of a loss last; none where all arrives.
    said: Option<Instant>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing that holds this lock can panic half-way through a change.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An exporter whose failures are counted and told of.
#[derive(Debug)]
struct Watched<E> {
    inner: E,
    waiting: Arc<AtomicUsize>,
    state: Arc<Mutex<State>>,
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let outcome = self.inner.export(batch).await;
        let mut state = locked(&self.state);
        match outcome {
            Ok(()) => {
                if state.said.take().is_some() {
                    let lost = std::mem::take(&mut state.unsaid);
                    tracing::info!(lost, "traces reach the collector again");
                }
            }
            Err(error) => {
                lost(Why::Collector, spans);
                state.unsaid += spans;
                if state.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
                    state.said = Some(Instant::now());
                    let lost = std::mem::take(&mut state.unsaid);
                    tracing::warn!(lost, %error, "traces do not reach the collector; their spans are lost");
                }
            }
        }
        // What there is to say of it has been said here.
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let lost = std::mem::take(&mut locked(&self.state).unsaid);
        if lost > 0 {
            tracing::warn!(lost, "traces did not reach the collector; their spans are lost");
        }
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::written::Lines;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::error::OTelSdkError;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use std::sync::atomic::AtomicBool;

    /// A collector that can be away.
    #[derive(Debug, Clone, Default)]
    struct Fake {
        away: Arc<AtomicBool>,
    }

    impl SpanExporter for Fake {
        async fn export(&self, _batch: Vec<SpanData>) -> OTelSdkResult {
            let away = self.away.load(Ordering::Relaxed);
            if away { Err(OTelSdkError::InternalFailure("refused".into())) } else { Ok(()) }
        }
    }

    fn spans(many: usize) -> Vec<SpanData> {
        let kept = Kept::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
        (0..many).for_each(|_| drop(provider.tracer("test").start("a span")));
        std::mem::take(&mut *kept.0.lock().unwrap())
    }

    /// Keeps spans, so that there are some to hand on.
    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    #[test]
    fn a_collector_that_is_away_is_told_of_once_and_its_spans_are_counted() {
        let (fake, lines) = (Fake::default(), Lines::default());
        let watched = Watched {
            inner: fake.clone(),
            waiting: Arc::new(AtomicUsize::new(100)),
            state: Arc::default(),
        };
        let recorder = PrometheusBuilder::new().build_recorder();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).finish();
        let subscriber = tracing::Dispatch::new(subscriber);
        let export = |many| {
            let batch = spans(many);
            let exported = || futures::executor::block_on(watched.export(batch));
            tracing::dispatcher::with_default(&subscriber, || {
                metrics::with_local_recorder(&recorder, exported).unwrap();
            });
        };
        export(1);
        assert_eq!(lines.take(), [""; 0], "all is well");
        fake.away.store(true, Ordering::Relaxed);
        (0..20).for_each(|_| export(2));
        let told = lines.take();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("WARN") && told[0].contains("refused"), "{told:?}");
        let counted = recorder.handle().render();
        assert!(counted.contains("telemetry_spans_lost_total{why=\"collector\"} 40"), "{counted}");
        fake.away.store(false, Ordering::Relaxed);
        (0..2).for_each(|_| export(1));
        let told = lines.take();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("INFO") && told[0].contains("lost=38"), "{told:?}");
    }

    #[test]
    fn a_span_that_finds_the_queue_full_is_counted() {
        let bounded = Bounded::new(Fake::default());
        bounded.waiting.store(QUEUE, Ordering::Relaxed);
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            spans(3).into_iter().for_each(|span| bounded.on_end(span));
        });
        let counted = recorder.handle().render();
        assert!(counted.contains("telemetry_spans_lost_total{why=\"queue\"} 3"), "{counted}");
    }
}
