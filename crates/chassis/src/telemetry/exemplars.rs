//! Exemplars: for each bucket of a histogram the trace of a request that fell into it.
//!
//! Separate because the exporter has none. `Recording` stands before its recorder and looks over the shoulder of what is
//! recorded within an exported span; where nothing is traced it hands on the recorder's own handles. Bounded as the series are:
//! one exemplar for each bucket of each.

use super::trace;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::PrometheusRecorder;
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The newest exemplar of each bucket, by series.
pub(super) struct Exemplars {
    bounds: fn(&str) -> &'static [f64],
    series: Mutex<HashMap<String, Vec<Option<Exemplar>>>>,
}

/// A value, and the span it was measured in.
#[derive(Debug, Clone)]
struct Exemplar {
    value: f64,
    trace: String,
    span: String,
    /// Unix seconds.
    at: f64,
}

impl Exemplars {
    pub(super) fn new(bounds: fn(&str) -> &'static [f64]) -> Self {
        Self { bounds, series: Mutex::default() }
    }

    fn keep(&self, key: &Key, value: f64, (trace, span): (String, String)) {
        let bounds = (self.bounds)(key.name());
        let bucket = bounds.partition_point(|bound| *bound < value);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = series.entry(name_of(key)).or_default();
        buckets.resize(bounds.len() + 1, None);
        if let Some(slot) = buckets.get_mut(bucket) {
            *slot = Some(Exemplar { value, trace, span, at });
        }
    }

    /// What OpenMetrics writes behind the sample of the bucket up to `le` of the series `name{labels}`; empty for none.
    pub(super) fn behind(&self, name: &str, labels: &str, le: &str) -> String {
        let bounds = (self.bounds)(name);
        let bucket = match le.parse::<f64>() {
            Ok(le) => bounds.partition_point(|bound| *bound < le),
            Err(_) => bounds.len(),
        };
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = series.get(&format!("{name}{{{labels}}}"));
        let Some(Some(exemplar)) = kept.and_then(|buckets| buckets.get(bucket)) else {
            return String::new();
        };
        let Exemplar { value, trace, span, at } = exemplar;
        format!(" # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {value} {at:.3}")
    }
}

/// `name{label="value",…}`, as the exporter writes it.
fn name_of(key: &Key) -> String {
    let mut name = format!("{}{{", key.name());
    for (index, label) in key.labels().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail. Values are words of ours and names of models: there is nothing to escape.
        let _written = write!(name, "{comma}{}=\"{}\"", label.key(), label.value());
    }
    name.push('}');
    name
}

/// The exporter's recorder, with exemplars where there are traces.
pub(super) struct Recording {
    recorder: PrometheusRecorder,
    exemplars: Option<Arc<Exemplars>>,
}

impl Recording {
    pub(super) const fn new(
        recorder: PrometheusRecorder,
        exemplars: Option<Arc<Exemplars>>,
    ) -> Self {
        Self { recorder, exemplars }
    }
}

impl Recorder for Recording {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_counter(key, unit, description);
    }
    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_gauge(key, unit, description);
    }
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_histogram(key, unit, description);
    }
    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.recorder.register_counter(key, metadata)
    }
    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.recorder.register_gauge(key, metadata)
    }
    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let histogram = self.recorder.register_histogram(key, metadata);
        match &self.exemplars {
            Some(exemplars) => {
                let exemplars = Arc::clone(exemplars);
                Histogram::from_arc(Arc::new(Exemplified {
                    histogram,
                    key: key.clone(),
                    exemplars,
                }))
            }
            None => histogram,
        }
    }
}

/// A histogram that remembers in which span its values were measured.
struct Exemplified {
    histogram: Histogram,
    key: Key,
    exemplars: Arc<Exemplars>,
}

impl HistogramFn for Exemplified {
    fn record(&self, value: f64) {
        self.histogram.record(value);
        if let Some((trace, span)) = trace::exported_ids() {
            self.exemplars.keep(&self.key, value, (trace.to_string(), span.to_string()));
        }
    }
}

impl fmt::Debug for Exemplars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exemplars").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exemplar_stands_behind_the_bucket_it_fell_into_and_no_other() {
        let exemplars = Exemplars::new(|_| &[0.1, 1.0]);
        let key = Key::from_parts("wait_seconds", vec![metrics::Label::new("model", "m")]);
        exemplars.keep(&key, 0.5, ("t1".into(), "s1".into()));
        exemplars.keep(&key, 7.0, ("t2".into(), "s2".into()));
        let behind = |le| exemplars.behind("wait_seconds", "model=\"m\"", le);
        assert_eq!(behind("0.1"), "");
        assert!(behind("1").starts_with(" # {trace_id=\"t1\",span_id=\"s1\"} 0.5 "));
        assert!(behind("+Inf").starts_with(" # {trace_id=\"t2\",span_id=\"s2\"} 7 "));
        assert_eq!(exemplars.behind("wait_seconds", "model=\"other\"", "1"), "");
    }
}
