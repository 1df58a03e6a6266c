//! What `/metrics` says: the text of Prometheus, or OpenMetrics with exemplars to those who ask for it.
//!
//! Separate because the exporter writes the former only. OpenMetrics is the same text with the names of counters without
//! `_total` in their types, without blank lines, and with an end.

use super::exemplars::Exemplars;
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;

/// What a scraper that understands it sends as a part of `Accept`.
const OPENMETRICS: &str = "application/openmetrics-text";
const OPENMETRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of this process; clones share everything.
#[derive(Debug, Clone)]
pub struct Exposition {
    handle: PrometheusHandle,
    exemplars: Option<Arc<Exemplars>>,
}

impl Exposition {
    pub(super) const fn new(handle: PrometheusHandle, exemplars: Option<Arc<Exemplars>>) -> Self {
        Self { handle, exemplars }
    }

    /// All metrics for a scraper that sends `accept`, and the type of what is answered.
    #[must_use]
    pub fn render(&self, accept: &str) -> (&'static str, String) {
        let text = self.handle.render();
        if accept.contains(OPENMETRICS) {
            (OPENMETRICS_TYPE, openmetrics(&text, self.exemplars.as_deref()))
        } else {
            (PROMETHEUS_TYPE, text)
        }
    }

    /// Takes in what was measured since the last time: without it, measurements that nobody scrapes pile up.
    pub(crate) fn tidy(&self) {
        self.handle.run_upkeep();
    }
}

fn openmetrics(text: &str, exemplars: Option<&Exemplars>) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.is_empty()) {
        let about = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        match about.and_then(|(about, rest)| Some((about, rest.split_once("_total ")?))) {
            // Counters alone are called so.
            Some((about, (family, rest))) if !family.contains(' ') => {
                out.extend(["# ", about, " ", family, " ", rest]);
            }
            Some(_) | None => {
                out.push_str(line);
                out.push_str(&exemplars.map(|kept| behind(line, kept)).unwrap_or_default());
            }
        }
        out.push('\n');
    }
    out.push_str("# EOF\n");
    out
}

/// The exemplar of a line `name_bucket{labels,le="bound"} count`.
fn behind(line: &str, exemplars: &Exemplars) -> String {
    let parts = || {
        let (name, rest) = line.split_once("_bucket{")?;
        let (labels, _count) = rest.rsplit_once('}')?;
        let (labels, le) = labels.rsplit_once("le=\"")?;
        Some((name, labels.trim_end_matches(','), le.trim_end_matches('"')))
    };
    parts().map(|(name, labels, le)| exemplars.behind(name, labels, le)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_has_no_blank_line_an_end_and_counters_by_their_family() {
        let text = "# HELP asked_total So often.\n# TYPE asked_total counter\nasked_total{a=\"b\"} 1\n\n\
             # HELP busy As asked_total says.\n# TYPE busy gauge\nbusy 2\n\n";
        let expected = "# HELP asked So often.\n# TYPE asked counter\nasked_total{a=\"b\"} 1\n\
             # HELP busy As asked_total says.\n# TYPE busy gauge\nbusy 2\n# EOF\n";
        assert_eq!(openmetrics(text, None), expected);
    }
}
