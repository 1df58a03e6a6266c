//! Tells somebody how far a download is.
//!
//! Separate because the command line draws bars, services write log lines, and tests want silence.
//! Reporting never fails and never blocks for long: it is called from the download loop.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines about one download: seldom enough for a log.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// How often a bar is redrawn while nothing is reported, so that the spinner shows life.
const TICK: Duration = Duration::from_millis(200);

/// What happened to a model that is being fetched. A model that is already complete reports nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// Fetching begins; so many bytes are expected in all.
    Started {
        /// Sum of the files to fetch.
        total_bytes: u64,
    },
    /// So many bytes are here; falls back when a source failed and the next one begins.
    Fetched {
        /// Position, from 0 to `total_bytes`.
        bytes: u64,
    },
    /// Something else takes time now: waiting for another process, converting, checking.
    Step(&'a str),
    /// The model is complete.
    Done,
}

/// Somebody who wants to know; several models may be reported in turns.
pub trait Progress: Send + Sync {
    /// Takes note of `event` about `model`.
    fn report(&self, model: &str, event: Event<'_>);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _model: &str, _event: Event<'_>) {}
}

/// Writes log lines: for services.
#[derive(Debug, Default)]
pub struct Log {
    lines: Lines,
}

impl Progress for Log {
    fn report(&self, model: &str, event: Event<'_>) {
        if let Some(line) = self.lines.line(model, event, Instant::now()) {
            tracing::info!("{line}");
        }
    }
}

/// Draws bars on stderr, or writes plain lines there when it is no terminal: for the command line.
pub struct Terminal {
    bars: Option<MultiProgress>,
    open: Mutex<HashMap<String, ProgressBar>>,
    lines: Lines,
}

impl Terminal {
    /// For the stderr of this process.
    #[must_use]
    pub fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, open: Mutex::default(), lines: Lines::default() }
    }

    fn draw(&self, bars: &MultiProgress, model: &str, event: Event<'_>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = open.entry(model.to_owned()).or_insert_with(|| {
            let bar = bars
                .add(ProgressBar::no_length().with_style(style()).with_prefix(model.to_owned()));
            bar.enable_steady_tick(TICK);
            bar
        });
        match event {
            Event::Started { total_bytes } => bar.set_length(total_bytes),
            Event::Fetched { bytes } => bar.set_position(bytes),
            Event::Step(text) => bar.set_message(text.to_owned()),
            Event::Done => {
                bar.finish_with_message("ready");
                open.remove(model);
            }
        }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").field("bars", &self.bars.is_some()).finish_non_exhaustive()
    }
}

impl Progress for Terminal {
    fn report(&self, model: &str, event: Event<'_>) {
        if let Some(bars) = &self.bars {
            return self.draw(bars, model, event);
        }
        if let Some(line) = self.lines.line(model, event, Instant::now()) {
            // A closed stderr is no reason to stop a download.
            let _closed = writeln!(std::io::stderr(), "{line}");
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix:32} {bar:24} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12} {msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Turns events into lines, at most one per interval for the bytes.
#[derive(Debug, Default)]
struct Lines {
    open: Mutex<HashMap<String, Last>>,
}

#[derive(Debug)]
struct Last {
    total: u64,
    begun: Instant,
    line: Instant,
}

impl Lines {
    fn line(&self, model: &str, event: Event<'_>, now: Instant) -> Option<String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let last = open.entry(model.to_owned()).or_insert(Last { total: 0, begun: now, line: now });
        match event {
            Event::Started { total_bytes } => {
                *last = Last { total: total_bytes, begun: now, line: now };
                Some(format!(
                    "fetching model `{model}` ({} MB)",
                    crate::error::megabytes(total_bytes)
                ))
            }
            Event::Fetched { bytes } => {
                if now.duration_since(last.line) < LINE_INTERVAL {
                    return None;
                }
                last.line = now;
                let (here, all) =
                    (crate::error::megabytes(bytes), crate::error::megabytes(last.total));
                Some(format!("fetching model `{model}`: {here} of {all} MB"))
            }
            Event::Step(text) => {
                last.line = now;
                Some(format!("model `{model}`: {text}"))
            }
            Event::Done => {
                let seconds = now.duration_since(last.begun).as_secs_f32();
                open.remove(model);
                Some(format!("model `{model}` is ready after {seconds:.1} s"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_bytes_come_every_few_seconds_only() {
        let (lines, t0) = (Lines::default(), Instant::now());
        let first = lines.line("m", Event::Started { total_bytes: 9_500_000 }, t0).unwrap();
        assert_eq!(first, "fetching model `m` (10 MB)");
        assert_eq!(lines.line("m", Event::Fetched { bytes: 1 }, t0 + LINE_INTERVAL / 2), None);
        let later =
            lines.line("m", Event::Fetched { bytes: 5_000_000 }, t0 + LINE_INTERVAL).unwrap();
        assert_eq!(later, "fetching model `m`: 5 of 10 MB");
        assert_eq!(lines.line("m", Event::Fetched { bytes: 6_000_000 }, t0 + LINE_INTERVAL), None);
        let done = lines.line("m", Event::Done, t0 + Duration::from_secs(7)).unwrap();
        assert_eq!(done, "model `m` is ready after 7.0 s");
    }
}
