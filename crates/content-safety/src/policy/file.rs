//! The file with policies that take effect without a restart.
//!
//! Read as a whole or not at all: a file with one mistake changes nothing, and the mistake is named. Contents are compared, not
//! times, because a mounted configuration may change within the second and keep its time.

use crate::config::Config;
use crate::error::SafetyError;
use crate::policy::{Policies, Policy};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// A file with policies over those of the configuration, and what it held last.
#[derive(Debug)]
pub(crate) struct PolicyFile {
    path: PathBuf,
    config: Config,
    last: Mutex<Option<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    policies: BTreeMap<String, Policy>,
}

impl PolicyFile {
    /// The file that `config` names; none where it names none.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let path = (!config.policy_file.is_empty()).then(|| PathBuf::from(&config.policy_file))?;
        Some(Self { path, config: config.clone(), last: Mutex::default() })
    }

    /// The policies now: those of the file, and those of the configuration that it does not name.
    pub(crate) fn load(&self) -> Result<Policies, SafetyError> {
        let read = std::fs::read_to_string(&self.path);
        self.note(read.as_ref().ok());
        self.policies(read)
    }

    /// The same, if the file is not what it was when somebody last looked.
    pub(crate) fn changed(&self) -> Option<Result<Policies, SafetyError>> {
        let read = std::fs::read_to_string(&self.path);
        self.note(read.as_ref().ok()).then(|| self.policies(read))
    }

    /// Whether the file is another than before: none stands for one that cannot be read.
    fn note(&self, now: Option<&String>) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = last.as_ref() != now;
        *last = now.cloned();
        changed
    }

    fn policies(&self, read: std::io::Result<String>) -> Result<Policies, SafetyError> {
        let text = read.map_err(|cause| self.wrong(&cause))?;
        let document: Document = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |at| text[..at.start].matches('\n').count() + 1);
            self.wrong(&format_args!("line {line}: {}", error.message()))
        })?;
        let mut policies = self.config.policies.clone();
        policies.extend(document.policies);
        match self.config.wrong_policies(&policies).first() {
            Some((option, message)) => Err(self.wrong(&format_args!("`{option}`: {message}"))),
            None => Ok(Policies::new(policies)),
        }
    }

    fn wrong(&self, cause: &dyn std::fmt::Display) -> SafetyError {
        SafetyError::Storage(format!("`{}`: {cause}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Mode;
    use chassis::config::{Sources, load};

    const LENIENT: &str = r#"
        [policies.default]
        prompt = { hate = "high", self_harm = "high", sexual = "high", violence = "high" }
        completion = { hate = "off", self_harm = "off", sexual = "off", violence = "off" }
        jailbreak = "annotate"
        indirect_attack = "off"
        shadow = true
    "#;

    fn file(text: &str) -> (tempfile::NamedTempFile, PolicyFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let config: Config = load("content_safety", crate::DEFAULTS, &Sources::default()).unwrap();
        let policy_file = file.path().display().to_string();
        let policies = PolicyFile::of(&Config { policy_file, ..config }).unwrap();
        (file, policies)
    }

    #[test]
    fn a_policy_of_the_file_takes_the_place_of_that_of_the_configuration() {
        let (_kept, file) = file(LENIENT);
        let policies = file.load().unwrap();
        assert_eq!(policies.get("").unwrap().jailbreak, Mode::Annotate);
        assert!(policies.get("").unwrap().shadow);
        assert_eq!(policies.get("strict").unwrap().jailbreak, Mode::Block);
        assert!(file.changed().is_none(), "nothing has changed since");
    }

    #[test]
    fn a_change_is_seen_once_and_a_mistake_is_named() {
        let (kept, file) = file(LENIENT);
        file.load().unwrap();
        std::fs::write(kept.path(), "").unwrap();
        let policies = file.changed().unwrap().unwrap();
        assert_eq!(policies.get("default").unwrap().jailbreak, Mode::Block);
        for (text, named) in [
            ("[policies.mine]\njailbreak = \"off\"", "line 1"),
            (&*LENIENT.replace("shadow", "shade"), "shade"),
            (
                &*LENIENT
                    .replace("shadow = true", "blocklists = [{ name = \"x\", mode = \"block\" }]"),
                "`x`",
            ),
        ] {
            std::fs::write(kept.path(), text).unwrap();
            let error = file.changed().unwrap().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
            assert!(file.changed().is_none(), "a mistake is told once");
        }
        std::fs::remove_file(kept.path()).unwrap();
        assert!(file.changed().unwrap().is_err() && file.changed().is_none());
    }

    #[test]
    fn without_a_file_there_is_nothing_to_watch() {
        let config: Config = load("content_safety", crate::DEFAULTS, &Sources::default()).unwrap();
        assert!(PolicyFile::of(&config).is_none());
    }
}
