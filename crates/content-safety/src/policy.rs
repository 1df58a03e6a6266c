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
mod tests {
    use super::*;

    fn policy(threshold: Threshold) -> Policy {
        let all = Thresholds {
            hate: threshold,
            self_harm: threshold,
            sexual: threshold,
            violence: threshold,
        };
        Policy {
            annotate_only: false,
            shadow: false,
            prompt: all,
            completion: all,
            jailbreak: Mode::Block,
            indirect_attack: Mode::Annotate,
            blocklists: vec![ListUse { name: "words".into(), mode: Mode::Block, managed: false }],
        }
    }

    fn violence(severity: u8) -> Findings {
        let grade = Grade { severity: Severity::new(severity), score: 0.5, span: None };
        let grades = Grades::default().with(Category::Violence, grade);
        Findings { grades, ..Findings::default() }
    }

    #[test]
    fn each_threshold_blocks_from_its_own_severity_on() {
        let first = |threshold| {
            (0..=7).find(|s| policy(threshold).judge(Direction::Prompt, violence(*s)).blocked)
        };
        assert_eq!(first(Threshold::Low), Some(2));
        assert_eq!(first(Threshold::Medium), Some(4));
        assert_eq!(first(Threshold::High), Some(6));
        assert_eq!(first(Threshold::Off), None);
    }

    #[test]
    fn a_category_that_is_off_or_was_not_judged_is_absent() {
        let mut policy = policy(Threshold::Medium);
        let verdict = policy.judge(Direction::Prompt, violence(0));
        let names: Vec<_> = verdict.categories.iter().map(|(c, _)| *c).collect();
        assert_eq!(names, [Category::Violence]);
        policy.prompt.violence = Threshold::Off;
        assert!(policy.judge(Direction::Prompt, violence(7)).categories.is_empty());
        assert!(policy.judge(Direction::Completion, violence(7)).blocked);
    }

    #[test]
    fn attacks_are_judged_in_prompts_only_and_by_their_mode() {
        let attack = Some(Attack { detected: true, score: 0.9, span: None });
        let found = Findings { jailbreak: attack, indirect_attack: attack, ..Findings::default() };
        let policy = policy(Threshold::Medium);
        let prompt = policy.judge(Direction::Prompt, found.clone());
        assert!(prompt.jailbreak.unwrap().filtered);
        assert!(!prompt.indirect_attack.unwrap().filtered);
        let completion = policy.judge(Direction::Completion, found);
        assert_eq!((completion.jailbreak, completion.blocked), (None, false));
    }

    #[test]
    fn a_prompt_without_an_attack_says_so() {
        let verdict = policy(Threshold::Medium).judge(Direction::Prompt, Findings::default());
        assert_eq!(verdict.jailbreak.unwrap().found, Attack::default());
    }

    #[test]
    fn an_annotate_only_policy_reports_and_never_blocks() {
        let mut found = violence(7);
        found.jailbreak = Some(Attack { detected: true, score: 1.0, span: None });
        found.hits.insert(Hit { list: "words".into(), id: "1".into(), text: "x".into() });
        let policy = Policy { annotate_only: true, ..policy(Threshold::Low) };
        let verdict = policy.judge(Direction::Prompt, found);
        assert!(!verdict.blocked);
        assert!(verdict.jailbreak.unwrap().found.detected);
        assert_eq!(verdict.blocklists.unwrap().len(), 1);
        assert_eq!(verdict.categories[0].1.found.severity, Severity::new(7));
    }

    #[test]
    fn a_policy_in_the_shadow_says_what_it_would_do_and_lets_everything_through() {
        let mut found = violence(7);
        found.jailbreak = Some(Attack { detected: true, score: 1.0, span: None });
        found.hits.insert(Hit { list: "words".into(), id: "1".into(), text: "x".into() });
        let policy = Policy { shadow: true, ..policy(Threshold::Low) };
        let verdict = policy.judge(Direction::Prompt, found);
        assert!(verdict.blocked && verdict.shadow);
        let through = verdict.let_through();
        assert!(!through.blocked && !through.jailbreak.unwrap().filtered);
        assert!(!through.categories[0].1.filtered && !through.blocklists.unwrap()[0].filtered);
        assert_eq!(through.categories[0].1.found.severity, Severity::new(7));
    }

    #[test]
    fn a_blocklist_blocks_or_annotates_by_its_mode() {
        let mut found = Findings::default();
        found.hits.insert(Hit { list: "words".into(), id: "1".into(), text: "x".into() });
        let mut policy = policy(Threshold::Off);
        assert!(policy.judge(Direction::Completion, found.clone()).blocked);
        policy.blocklists[0].mode = Mode::Annotate;
        let verdict = policy.judge(Direction::Completion, found);
        assert!(!verdict.blocked && verdict.blocklists.unwrap().len() == 1);
        policy.blocklists[0].mode = Mode::Off;
        assert!(policy.lists().is_empty());
        let unsearched = policy.judge(Direction::Completion, Findings::default());
        assert_eq!(unsearched.blocklists, None);
    }

    #[test]
    fn the_empty_name_is_the_default_policy_which_is_listed_first() {
        let all = ["strict", "default", "annotate"].map(|n| (n.to_owned(), policy(Threshold::Low)));
        let policies = Policies::new(BTreeMap::from(all));
        assert!(policies.get("").is_ok());
        assert_eq!(policies.names(), ["default", "annotate", "strict"]);
        assert!(policies.get("lax").unwrap_err().to_string().contains("`strict`"));
    }
}
