//! Configuration in three layers: the embedded commented `config.toml` of a service, a file, the environment.
//!
//! The only reader of the process environment and arguments. One file serves all services: each reads the table of its
//! own name and leaves the others alone. Unknown keys are refused, and all problems are reported at once.

mod messages;
mod service;

pub use service::ServiceConfig;

use crate::state::StateConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use toml::{Table, Value};

/// The tables that a configuration file may have.
pub const SECTIONS: [&str; 5] = ["edge", "chat", "embedding", "content_safety", "standalone"];
/// Environment variable that names the configuration file.
const FILE_VARIABLE: &str = "KOINE_CONFIG";
/// More problems than this are not worth reading at once.
const MOST_PROBLEMS: usize = 50;

/// A configuration, and the value of every option that it was made of.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The options as types.
    pub config: C,
    /// The same as a tree, whose root has a table for each section. May hold secrets: never to be shown.
    pub values: Table,
}

/// A service's configuration.
pub trait Configured: DeserializeOwned + Clone {
    /// The part that every service has.
    fn service(&self) -> &ServiceConfig;
    /// Checks that types cannot express; nothing about the world outside.
    fn check(&self, problems: &mut Problems);
    /// Looks at the files that the options name.
    fn check_files(&self, problems: &mut Problems);
    /// Where shared state is, for a service that has some.
    fn state(&self) -> Option<&StateConfig> {
        None
    }
    /// Whether a new value of `option` (`edge.limits.body_bytes`) is taken without a restart, besides the filter of the log.
    #[must_use]
    fn takes_at_once(_option: &str) -> bool {
        false
    }
}

/// A value that must not be shown: its Debug prints `***`.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `value`.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself: for comparing and sending, never for showing.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Everything wrong with a configuration, each with the option's full name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Problems {
    section: String,
    list: Vec<String>,
}

impl Problems {
    /// What is wrong with the files that `config`, the table `section`, names.
    ///
    /// # Errors
    /// All of it at once.
    pub fn in_files<C: Configured>(section: &str, config: &C) -> Result<(), Self> {
        let mut problems = Self::of(section);
        config.service().telemetry.check_files(&mut problems);
        config.check_files(&mut problems);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// None yet, for the options of `section`.
    #[must_use]
    pub fn of(section: &str) -> Self {
        Self { section: section.to_owned(), list: Vec::new() }
    }

    /// Notes that `option` (a path within the section) is wrong and what was expected.
    pub fn add(&mut self, option: &str, message: impl fmt::Display) {
        self.list.push(format!("`{}.{option}`: {message}", self.section));
    }

    /// Adds the problems of another section; what both found (an unknown table, say) is kept once.
    pub fn merge(&mut self, other: Self) {
        for problem in other.list {
            if !self.list.contains(&problem) {
                self.list.push(problem);
            }
        }
    }

    /// All of them in one line of log.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        self.list.join("; ")
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s):", self.list.len())?;
        self.list.iter().try_for_each(|p| write!(f, "\n  {p}"))
    }
}

impl std::error::Error for Problems {}

/// Where values come from besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Variables such as `CHAT__SERVICE__LISTEN`.
    pub env: Vec<(String, String)>,
}

impl Sources {
    /// The environment of this process, and the file named by `KOINE_CONFIG` unless `file` is given.
    #[must_use]
    pub fn from_process(file: Option<PathBuf>) -> Self {
        let env: Vec<_> = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        let named = env.iter().find(|(k, v)| k == FILE_VARIABLE && !v.is_empty());
        let file = file.or_else(|| named.map(|(_, v)| PathBuf::from(v)));
        Self { file, env }
    }
}

/// The command line of a service binary.
#[derive(Debug, Default)]
pub(crate) struct Args {
    file: Option<PathBuf>,
    help: bool,
    version: bool,
    pub(crate) check: bool,
    pub(crate) healthcheck: bool,
}

impl Args {
    pub(crate) fn from_process() -> Result<Self, String> {
        Self::parse(std::env::args().skip(1))
    }

    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--config" => args.file = Some(words.next().ok_or("--config needs a file")?.into()),
                "--check" => args.check = true,
                "healthcheck" => args.healthcheck = true,
                "--help" | "-h" => args.help = true,
                "--version" | "-V" => args.version = true,
                other => return Err(format!("unknown argument `{other}`; try --help")),
            }
        }
        Ok(args)
    }

    pub(crate) fn sources(&self) -> Sources {
        Sources::from_process(self.file.clone())
    }

    pub(crate) fn print(&self, section: &str) -> Option<String> {
        let version = env!("CARGO_PKG_VERSION");
        let help = format!(
            "{section} {version}\n\nusage: {section} [--config FILE] [--check]\n       {section} healthcheck\n\n\
             options come from FILE (or ${FILE_VARIABLE}), table `{section}`, and from variables such as\n{}__SERVICE__LISTEN",
            section.to_uppercase()
        );
        self.help.then_some(help).or_else(|| self.version.then(|| format!("{section} {version}")))
    }
}

/// Loads the table `section`: `defaults` (its embedded `config.toml`), then the file, then the environment.
///
/// # Errors
/// All problems at once, each naming the option and what was expected.
pub fn load<C: Configured>(
    section: &str,
    defaults: &str,
    sources: &Sources,
) -> Result<C, Problems> {
    load_with_values(section, defaults, sources).map(|loaded| loaded.config)
}

/// The same, with the values.
///
/// # Errors
/// As `load`.
pub fn load_with_values<C: Configured>(
    section: &str,
    defaults: &str,
    sources: &Sources,
) -> Result<Loaded<C>, Problems> {
    let mut problems = Problems::of(section);
    let base = table(defaults, "the embedded defaults", &mut problems).remove(section);
    let base = base.unwrap_or_else(|| Value::Table(Table::new()));
    let mut merged = base.clone();
    if let Some(file) = &sources.file {
        match std::fs::read_to_string(file) {
            Ok(text) => {
                merge_file(section, &text, &file.display().to_string(), &mut merged, &mut problems);
            }
            Err(error) => problems.list.push(format!("cannot read {}: {error}", file.display())),
        }
    }
    merge_env(section, &sources.env, &mut merged, &mut problems);
    let values = Table::from_iter([(section.to_owned(), merged.clone())]);
    let config = parse::<C>(&base, merged, &mut problems);
    if let Some(config) = &config {
        config.service().check(&mut problems);
        config.check(&mut problems);
    }
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, values }),
        Some(_) | None => Err(problems),
    }
}

fn table(text: &str, name: &str, problems: &mut Problems) -> Table {
    text.parse::<Table>().unwrap_or_else(|error| {
        // The library's whole message quotes the line, and there may be a secret in it.
        let line = error.span().map_or(0, |at| text[..at.start].matches('\n').count() + 1);
        let message = error.message();
        problems.list.push(format!("{name} is not TOML: line {line}: {message}"));
        Table::new()
    })
}

fn merge_file(section: &str, text: &str, name: &str, merged: &mut Value, problems: &mut Problems) {
    for (key, value) in table(text, name, problems) {
        if key == section {
            overlay(merged, value);
        } else if !SECTIONS.contains(&key.as_str()) {
            let known = SECTIONS.join("`, `");
            let hint = messages::nearest(&key, &SECTIONS);
            let message = format!("`{key}` in {name}: unknown table{hint}; known are `{known}`");
            problems.list.push(message);
        }
    }
}

/// Tables are merged key by key; everything else, lists too, is replaced.
fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Table(base), Value::Table(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(slot) => overlay(slot, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        (base, over) => *base = over,
    }
}

fn merge_env(section: &str, env: &[(String, String)], merged: &mut Value, problems: &mut Problems) {
    let prefix = format!("{}__", section.to_uppercase());
    for (name, text) in env {
        let Some(path) = name.strip_prefix(&prefix) else { continue };
        let path: Vec<String> = path.split("__").map(str::to_lowercase).collect();
        if !set(merged, &path, text) {
            let known = merged.as_table().map(|t| t.keys().cloned().collect::<Vec<_>>());
            let first = path.first().map_or("", String::as_str);
            let hint = messages::nearest(first, &known.unwrap_or_default());
            problems
                .list
                .push(format!("environment variable {name}: no such table of options{hint}"));
        }
    }
}

/// Sets the value at `path`: text where text is the default, else a TOML value (`3`, `true`, `["a"]`), else text.
fn set(value: &mut Value, path: &[String], text: &str) -> bool {
    let (Value::Table(table), Some((first, rest))) = (value, path.split_first()) else {
        return false;
    };
    if !rest.is_empty() {
        let next = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
        return set(next, rest, text);
    }
    let is_text = matches!(table.get(first), Some(Value::String(_)));
    let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let new = parsed.filter(|_| !is_text).unwrap_or_else(|| Value::String(text.to_owned()));
    table.insert(first.clone(), new);
    true
}

/// Reads `merged`; after each problem the default takes the place of the wrong value, so that the next one is found too.
fn parse<C: Configured>(base: &Value, mut merged: Value, problems: &mut Problems) -> Option<C> {
    for _ in 0..MOST_PROBLEMS {
        let mut unknown = BTreeSet::new();
        let mut track = serde_path_to_error::Track::new();
        let read = {
            let paths = serde_path_to_error::Deserializer::new(merged.clone(), &mut track);
            serde_ignored::deserialize(paths, |path| {
                unknown.insert(path.to_string());
            })
        };
        match read {
            Ok(config) => {
                unknown.iter().for_each(|path| problems.add(path, "unknown option"));
                return Some(config);
            }
            Err(error) => {
                let path = track.path().to_string();
                problems.add(&path, messages::plain(&path, error.to_string().trim_end()));
                if !reset(&mut merged, base, &path) {
                    return None;
                }
            }
        }
    }
    None
}

/// Puts the default back at `path`, or removes an option that has none; false when there is nothing to do.
fn reset(merged: &mut Value, base: &Value, path: &str) -> bool {
    let mut slot = merged;
    let mut default = Some(base);
    let keys: Vec<&str> = path.split('.').collect();
    let Some((last, parents)) = keys.split_last() else { return false };
    for key in parents {
        let Some(next) = slot.get_mut(*key) else { return false };
        slot = next;
        default = default.and_then(|d| d.get(*key));
    }
    let Value::Table(table) = slot else { return false };
    match default.and_then(|d| d.get(*last)) {
        Some(value) if table.get(*last) != Some(value) => {
            table.insert((*last).to_owned(), value.clone());
            true
        }
        Some(_) => false,
        None => table.remove(*last).is_some(),
    }
}

/// Replaces this process by itself with `variables` set, unless they are set already: for libraries that read the
/// environment before `main` (OpenMP's wait policy). Returns only when nothing had to be done or it failed.
pub fn reexec_with(variables: &[(&str, &str)]) {
    use std::os::unix::process::CommandExt as _;
    let missing: Vec<_> = variables.iter().filter(|(k, _)| std::env::var_os(k).is_none()).collect();
    let (false, Ok(program)) = (missing.is_empty(), std::env::current_exe()) else { return };
    let mut command = std::process::Command::new(program);
    command.args(std::env::args_os().skip(1)).envs(missing.into_iter().copied());
    // `exec` returns only on failure; then the process runs on with its old environment, slower but right.
    let _error = command.exec();
}

#[cfg(test)]
mod tests;
