//! Thresholds → verdict: what an operator tolerates, under a name.
//!
//! Separate and pure: models say how bad something is, a policy says whether that is too bad here. Invariant: a harmless
//! grade is never filtered, and an annotate-only policy filters nothing.

pub(crate) mod file;

use crate::blocklist::Hit;
use crate::category::{Attack, Category, Grade, Grades, Severity};
use crate::error::SafetyError;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The policy of requests that name none.
pub const DEFAULT: &str = "default";

/// Which way a text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Into a model.
    Prompt,
    /// Out of a model.
    Completion,
}

impl Direction {
    /// For logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Completion => "completion",
        }
    }
}

/// From which severity on a category is filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Threshold {
    /// The category is not judged.
    Off,
    /// Low, medium and high are filtered.
    Low,
    /// Medium and high are filtered.
    Medium,
    /// Only high is filtered.
    High,
}

impl Threshold {
    /// The least severity that is filtered; none when the category is off (contract, section 13.1).
    const fn begins(self) -> Option<Severity> {
        match self {
            Self::Off => None,
            Self::Low => Some(Severity::new(2)),
            Self::Medium => Some(Severity::new(4)),
            Self::High => Some(Severity::new(6)),
        }
    }
}

/// What happens when something is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is not looked for.
    Off,
    /// It is reported.
    Annotate,
    /// It is reported and filtered.
    Block,
}

/// The thresholds of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// For hate.
    pub hate: Threshold,
    /// For self-harm.
    pub self_harm: Threshold,
    /// For sexual content.
    pub sexual: Threshold,
    /// For violence.
    pub violence: Threshold,
}

impl Thresholds {
    /// The threshold of `category`.
    #[must_use]
    pub const fn of(&self, category: Category) -> Threshold {
        match category {
            Category::Hate => self.hate,
            Category::SelfHarm => self.self_harm,
            Category::Sexual => self.sexual,
            Category::Violence => self.violence,
        }
    }
}

/// A blocklist under a policy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListUse {
    /// Name of the list.
    pub name: String,
    /// What a match does.
    pub mode: Mode,
    /// Whether callers manage the list; until one makes it, it is empty.
    #[serde(default)]
    pub managed: bool,
}

/// What an operator tolerates.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Report everything, filter nothing.
    #[serde(default)]
    pub annotate_only: bool,
    /// Judge as if it were in force and record that, but filter nothing.
    #[serde(default)]
    pub shadow: bool,
    /// For what goes into a model.
    pub prompt: Thresholds,
    /// For what comes out of a model.
    pub completion: Thresholds,
    /// Attacks in the user's own words; prompts only.
    pub jailbreak: Mode,
    /// Attacks in documents and tool results; prompts only.
    pub indirect_attack: Mode,
    /// Blocklists, for both directions.
    #[serde(default)]
    pub blocklists: Vec<ListUse>,
}

/// What was found in all the texts and pictures of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// The worst of every category.
    pub grades: Grades,
    /// The worst of the user's own words; none when there were none.
    pub jailbreak: Option<Attack>,
    /// The worst of the documents; none when there were none.
    pub indirect_attack: Option<Attack>,
    /// Matches of blocklists.
    pub hits: BTreeSet<Hit>,
}

/// A finding with the policy's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged<T> {
    /// What was found.
    pub found: T,
    /// Whether the policy filters it.
    pub filtered: bool,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Whether anything is filtered.
    pub blocked: bool,
    /// Whether the policy would only like to: see `Policy::shadow`.
    pub shadow: bool,
    /// The categories that the policy and a model judge.
    pub categories: Vec<(Category, Judged<Grade>)>,
    /// None when the policy does not look for it, and for completions.
    pub jailbreak: Option<Judged<Attack>>,
    /// None when the policy does not look for it, and for completions.
    pub indirect_attack: Option<Judged<Attack>>,
    /// Matches of the policy's blocklists; none when it looks into none.
    pub blocklists: Option<Vec<Judged<Hit>>>,
}

impl Verdict {
    /// The same findings, nothing of which is filtered.
    #[must_use]
    pub fn let_through(mut self) -> Self {
        self.blocked = false;
        self.categories.iter_mut().for_each(|(_, judged)| judged.filtered = false);
        for judged in [&mut self.jailbreak, &mut self.indirect_attack].into_iter().flatten() {
            judged.filtered = false;
        }
        self.blocklists.iter_mut().flatten().for_each(|judged| judged.filtered = false);
        self
    }
}

impl Policy {
    /// Names of the lists that this policy looks into.
    #[must_use]
    pub fn lists(&self) -> Vec<String> {
        let used = self.blocklists.iter().filter(|list| list.mode != Mode::Off);
        used.map(|list| list.name.clone()).collect()
    }

    /// What this policy makes of `findings`.
    #[must_use]
    pub fn judge(&self, direction: Direction, findings: Findings) -> Verdict {
        let thresholds = match direction {
            Direction::Prompt => self.prompt,
            Direction::Completion => self.completion,
        };
        let category = |(category, found): (Category, Grade)| {
            let begins = thresholds.of(category).begins()?;
            let filtered = !self.annotate_only && found.severity >= begins;
            Some((category, Judged { found, filtered }))
        };
        let categories: Vec<_> = findings.grades.iter().filter_map(category).collect();
        let (jailbreak, indirect_attack) = match direction {
            Direction::Prompt => (
                self.attack(self.jailbreak, findings.jailbreak),
                self.attack(self.indirect_attack, findings.indirect_attack),
            ),
            Direction::Completion => (None, None),
        };
        let searched = self.blocklists.iter().any(|list| list.mode != Mode::Off);
        let blocklists: Option<Vec<_>> =
            searched.then(|| findings.hits.into_iter().map(|hit| self.hit(hit)).collect());
        let blocked = categories.iter().any(|(_, judged)| judged.filtered)
            || jailbreak.as_ref().is_some_and(|judged| judged.filtered)
            || indirect_attack.as_ref().is_some_and(|judged| judged.filtered)
            || blocklists.iter().flatten().any(|judged| judged.filtered);
        Verdict { blocked, shadow: self.shadow, categories, jailbreak, indirect_attack, blocklists }
    }

    /// Where an attack is looked for it is always reported: nothing that could attack is "not detected".
    fn attack(&self, mode: Mode, found: Option<Attack>) -> Option<Judged<Attack>> {
        let blocks = match mode {
            Mode::Off => return None,
            Mode::Annotate => false,
            Mode::Block => !self.annotate_only,
        };
        let found = found.unwrap_or_default();
        Some(Judged { found, filtered: blocks && found.detected })
    }

    fn hit(&self, hit: Hit) -> Judged<Hit> {
        let used = self.blocklists.iter().filter(|list| list.name == hit.list);
        let blocks = used.into_iter().any(|list| list.mode == Mode::Block);
        Judged { filtered: blocks && !self.annotate_only, found: hit }
    }
}

/// The policies of a service, by name.
#[derive(Debug, Clone)]
pub struct Policies {
    by_name: BTreeMap<String, Policy>,
}

impl Policies {
    /// Takes the configured policies.
    #[must_use]
    pub const fn new(by_name: BTreeMap<String, Policy>) -> Self {
        Self { by_name }
    }

    /// The policy `name`; empty is the default one.
    ///
    /// # Errors
    /// `UnknownPolicy` with the names that are known.
    pub fn get(&self, name: &str) -> Result<&Policy, SafetyError> {
        let name = if name.is_empty() { DEFAULT } else { name };
        self.by_name.get(name).ok_or_else(|| SafetyError::UnknownPolicy {
            name: name.to_owned(),
            known: self.names(),
        })
    }

    /// All names, the default one first.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let (mut names, rest): (Vec<String>, Vec<String>) =
            self.by_name.keys().cloned().partition(|name| name == DEFAULT);
        names.extend(rest);
        names
    }
}

#[cfg(test)]
mod tests;
