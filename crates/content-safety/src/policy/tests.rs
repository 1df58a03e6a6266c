//! What each threshold and mode filters.

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
