//! The configuration file, read again while the process runs: when it changes, and on SIGHUP.
//!
//! Separate from `config`, which reads once. Here it is decided when to read; whoever runs decides what becomes of it. The
//! invariant: a file that is wrong, or of which something cannot be built, changes nothing; one line of log and one metric say
//! so. Lines of log name options and never values.

use crate::config::Loaded;
use crate::watch::Watched;
use crate::{Problems, Tasks, telemetry};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior};
use toml::{Table, Value};

type Load<C> = Box<dyn Fn() -> Result<Loaded<C>, Problems> + Send + Sync>;

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Applied,
    Refused,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }
}

/// Where newer configurations come from.
pub struct Reloads<C> {
    section: &'static str,
    load: Option<Load<C>>,
    takes_at_once: fn(&str) -> bool,
    /// What is in force.
    values: Table,
    watched: Watched,
    ticks: Option<Interval>,
    hangups: Option<Signal>,
}

impl<C> fmt::Debug for Reloads<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloads").field("section", &self.section).finish_non_exhaustive()
    }
}

impl<C: 'static> Reloads<C> {
    /// A configuration that never changes.
    #[must_use]
    pub fn never() -> Self {
        Self {
            section: "",
            load: None,
            takes_at_once: |_| false,
            values: Table::new(),
            watched: Watched::new([]),
            ticks: None,
            hangups: None,
        }
    }

    /// The configuration of the process `section` that `load` reads, with `values` in force: looked at every so often in `file`,
    /// and read on SIGHUP. Must be called within the runtime.
    pub fn new(
        section: &'static str,
        (file, every): (Option<PathBuf>, Duration),
        (load, takes_at_once): (
            impl Fn() -> Result<Loaded<C>, Problems> + Send + Sync + 'static,
            fn(&str) -> bool,
        ),
        values: Table,
    ) -> Self {
        for outcome in [Outcome::Applied, Outcome::Refused] {
            count(outcome, 0);
        }
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Of a process in a terminal a hangup is the end, as ever.
        let hangups =
            if std::io::stdin().is_terminal() { None } else { signal(SignalKind::hangup()).ok() };
        Self {
            section,
            load: Some(Box::new(load)),
            takes_at_once,
            values,
            watched: Watched::new(file),
            ticks: Some(ticks),
            hangups,
        }
    }

    /// The same for a part of the configuration.
    #[must_use]
    pub fn map<D>(self, part: impl Fn(C) -> D + Send + Sync + 'static) -> Reloads<D> {
        let load = self.load.map(|load| -> Load<D> {
            Box::new(move || {
                load().map(|Loaded { config, values }| Loaded { config: part(config), values })
            })
        });
        Reloads {
            section: self.section,
            load,
            takes_at_once: self.takes_at_once,
            values: self.values,
            watched: self.watched,
            ticks: self.ticks,
            hangups: self.hangups,
        }
    }

    /// Waits for a configuration that is valid and another than the one in force. What becomes of it must be said by `applied`
    /// or `refused`.
    pub async fn next(&mut self) -> Loaded<C> {
        loop {
            self.triggered().await;
            let Some(load) = &self.load else { continue };
            match load() {
                Ok(loaded) if loaded.values == self.values => {
                    tracing::info!("the configuration was read again; nothing changed");
                }
                Ok(loaded) => return loaded,
                Err(problems) => self.refused(&problems.in_one_line()),
            }
        }
    }

    /// The configuration of `values` is in force now.
    pub fn applied(&mut self, values: Table) {
        let log = format!("{}.service.telemetry.log", self.section);
        let changed = differences(&self.values, &values);
        let taken = |option: &&String| **option == log || (self.takes_at_once)(option);
        let (now, later): (Vec<_>, Vec<_>) = changed.iter().partition(taken);
        if now.contains(&&log)
            && let Some(Value::String(filter)) = leaves(&values).get(&log)
        {
            telemetry::set_filter(filter);
        }
        count(Outcome::Applied, 1);
        tracing::info!(changed = list(&now), "the configuration was read again and is in force");
        if !later.is_empty() {
            tracing::warn!(options = list(&later), "these options need a restart to change");
        }
        self.values = values;
    }

    /// A configuration could not be put in force; `why` is for the operator and holds no secret.
    pub fn refused(&self, why: &str) {
        count(Outcome::Refused, 1);
        tracing::warn!(why, "the configuration was not taken; the one of before holds");
    }

    /// Takes the filter of the log out of each new configuration until `tasks` stop, and names what needs a restart.
    pub async fn follow_log(mut self, tasks: &Tasks) {
        let mut stopping = std::pin::pin!(tasks.stopping());
        loop {
            tokio::select! {
                loaded = self.next() => self.applied(loaded.values),
                () = &mut stopping => return,
            }
        }
    }

    async fn triggered(&mut self) {
        let Some(ticks) = &mut self.ticks else { return std::future::pending().await };
        loop {
            let hangup = async {
                match &mut self.hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = hangup => return,
                _ = ticks.tick() => {}
            }
            if self.watched.changed().await {
                return;
            }
        }
    }
}

fn count(outcome: Outcome, times: u64) {
    metrics::counter!("config_reloads_total", "outcome" => outcome.as_str()).increment(times);
}

fn list(options: &[&String]) -> String {
    let names: Vec<&str> = options.iter().map(|name| name.as_str()).collect();
    names.join(", ")
}

/// Names of the options whose values differ.
fn differences(before: &Table, after: &Table) -> BTreeSet<String> {
    let (before, after) = (leaves(before), leaves(after));
    let names = before.keys().chain(after.keys());
    names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

/// Every option by its full name.
fn leaves(table: &Table) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut left: Vec<(String, &Table)> = vec![(String::new(), table)];
    while let Some((prefix, table)) = left.pop() {
        for (key, value) in table {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value.as_table() {
                Some(inner) => left.push((name, inner)),
                None => {
                    found.insert(name, value.clone());
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn options_that_differ_are_named_and_their_values_are_not() {
        let before = table("[edge]\nkey = 'hush'\n[edge.limits]\na = 1\nb = 2\nlist = [1]\n");
        let after = table("[edge]\nkey = 'hushed'\n[edge.limits]\na = 1\nlist = [1, 2]\nnew = 3\n");
        let names: Vec<_> = differences(&before, &after).into_iter().collect();
        assert_eq!(names, ["edge.key", "edge.limits.b", "edge.limits.list", "edge.limits.new"]);
    }

    #[tokio::test]
    async fn a_valid_change_comes_out_and_a_wrong_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("koine.toml");
        std::fs::write(&path, "a = 1").unwrap();
        let load = {
            let path = path.clone();
            move || {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let values: Table = text.parse().map_err(|_| Problems::of("edge"))?;
                Ok(Loaded { config: values["a"].as_integer(), values })
            }
        };
        let values = load().unwrap().values;
        let every = Duration::from_millis(2);
        let mut reloads =
            Reloads::new("edge", (Some(path.clone()), every), (load, |_| true), values)
                .map(|a| a.map(|a| a * 10));
        std::fs::write(&path, "a = 2").unwrap();
        let loaded = reloads.next().await;
        assert_eq!(loaded.config, Some(20));
        reloads.applied(loaded.values);
        std::fs::write(&path, "a = = 3").unwrap();
        let waited = tokio::time::timeout(every * 20, reloads.next()).await;
        assert!(waited.is_err(), "a wrong file is no configuration");
        std::fs::write(&path, "a = 4").unwrap();
        assert_eq!(reloads.next().await.config, Some(40));
    }
}
