//! Tests of `sampling`.

use super::*;
use serde_json::json;
use std::collections::BTreeMap;

const SIZE: (i32, u32) = (4, 64);

fn defaults() -> SamplingConfig {
    SamplingConfig {
        temperature: 0.7,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repeat_penalty: 1.0,
        repeat_last_n: 64,
    }
}

fn greedy(change: impl FnOnce(&mut Sampling)) -> Sampler {
    let mut request = Sampling { temperature: Some(0.0), ..Sampling::default() };
    change(&mut request);
    Plan::new(&request, &Map::new(), &defaults(), SIZE).unwrap().sampler(0, &[], None)
}

fn draws(sampler: &mut Sampler, logits: &[f32], times: usize) -> Vec<i32> {
    let mut scratch = Scratch::new();
    (0..times)
        .map(|_| {
            let token = sampler.next(logits, &mut scratch).unwrap();
            sampler.accept(token).unwrap();
            token.0
        })
        .collect()
}

#[test]
fn penalties_follow_the_formula_of_openai() {
    // Without penalties the best token comes every time.
    assert_eq!(draws(&mut greedy(|_| {}), &[1.0, 0.0, -1.0, -9.0], 3), [0, 0, 0]);
    // 1.0 - 1.5 * 1 falls below 0.0; then 0.0 - 1.5 below 1.0 - 1.5, and so on.
    let mut presence = greedy(|r| r.presence_penalty = Some(1.5));
    assert_eq!(draws(&mut presence, &[1.0, 0.0, -1.0, -9.0], 4), [0, 1, 0, 0]);
    // Each repetition costs 0.6: 1.0, 0.4, -0.2 against 0.0.
    let mut frequency = greedy(|r| r.frequency_penalty = Some(0.6));
    assert_eq!(draws(&mut frequency, &[1.0, 0.0, -9.0, -9.0], 4), [0, 0, 1, 0]);
}

#[test]
fn a_bias_can_force_and_ban_a_token() {
    let mut forced = greedy(|r| r.logit_bias = BTreeMap::from([(3, 100.0), (0, -100.0)]));
    assert_eq!(draws(&mut forced, &[1.0, 0.0, -1.0, -9.0], 2), [3, 3]);
}

#[test]
fn the_same_seed_draws_the_same_tokens_and_other_choices_draw_others() {
    let plan = |seed| {
        let request = Sampling { temperature: Some(2.0), seed: Some(seed), ..Sampling::default() };
        Plan::new(&request, &Map::new(), &defaults(), SIZE).unwrap()
    };
    let run =
        |seed, choice| draws(&mut plan(seed).sampler(choice, &[], None), &[1.0, 1.0, 1.0, 1.0], 64);
    assert_eq!(run(7, 0), run(7, 0));
    assert_ne!(run(7, 0), run(7, 1));
    assert_ne!(run(7, 0), run(8, 0));
    assert_eq!(run(-1, 0), run(-1, 0), "a seed whose bits mean random is still a seed");
}

#[test]
fn extra_parameters_cut_the_distribution() {
    let extra = json!({ "top_k": 1 }).as_object().cloned().unwrap();
    let request = Sampling { temperature: Some(2.0), ..Sampling::default() };
    let mut sampler = Plan::new(&request, &extra, &defaults(), SIZE).unwrap().sampler(0, &[], None);
    assert_eq!(draws(&mut sampler, &[0.9, 1.0, 0.9, 0.9], 32), [1; 32]);
}

#[test]
fn what_the_engine_does_not_know_is_refused_by_name() {
    let refuse = |extra: Value| {
        let extra = extra.as_object().cloned().unwrap();
        Plan::new(&Sampling::default(), &extra, &defaults(), SIZE).unwrap_err()
    };
    let ChatError::Unsupported { target, input, .. } = refuse(json!({ "mirostat": 2 })) else {
        panic!()
    };
    assert_eq!((target.as_str(), input), ("mirostat", json!(2)));
    assert!(
        matches!(refuse(json!({ "min_p": 3 })), ChatError::Invalid { target, .. } if target == "min_p")
    );
    assert!(
        matches!(refuse(json!({ "top_k": -1 })), ChatError::Invalid { target, .. } if target == "top_k")
    );
}

#[test]
fn a_token_outside_the_vocabulary_is_refused() {
    let request = Sampling { logit_bias: BTreeMap::from([(4, 1.0)]), ..Sampling::default() };
    let error = Plan::new(&request, &Map::new(), &defaults(), SIZE).unwrap_err();
    assert!(matches!(error, ChatError::Invalid { target, .. } if target == "logit_bias"));
}
