//! Log probabilities from the raw logits of a position, before penalties and temperature.
//!
//! Separate because it is pure arithmetic over a row of the vocabulary.

/// A token's log probability and the most probable alternatives.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scores {
    /// Natural logarithm of the probability of the chosen token.
    pub(crate) chosen: f32,
    /// Token ids with theirs, most probable first.
    pub(crate) best: Vec<(i32, f32)>,
}

/// Scores of `chosen` and of the `top` most probable tokens, given the `logits` of all tokens.
pub(crate) fn scores(logits: &[f32], chosen: i32, top: usize) -> Scores {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - largest).exp()).sum();
    #[expect(clippy::cast_possible_truncation, reason = "single precision is what the API reports")]
    let normaliser = largest + sum.ln() as f32;
    let of = |id: i32| {
        usize::try_from(id)
            .ok()
            .and_then(|i| logits.get(i))
            .map_or(f32::NEG_INFINITY, |l| l - normaliser)
    };
    let mut best: Vec<(i32, f32)> = Vec::with_capacity(top + 1);
    for (id, logit) in (0_i32..).zip(logits) {
        if top == 0 || (best.len() == top && best.last().is_some_and(|(_, least)| logit <= least)) {
            continue;
        }
        let at = best.partition_point(|(_, other)| other >= logit);
        best.insert(at, (id, *logit));
        best.truncate(top);
    }
    Scores {
        chosen: of(chosen),
        best: best.into_iter().map(|(id, logit)| (id, logit - normaliser)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_to_one() {
        let logits = [2.0, -1.0, 0.5, 30.0, 29.0];
        let all = scores(&logits, 3, 5);
        let sum: f32 = all.best.iter().map(|(_, l)| l.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5);
        assert_eq!(all.best.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [3, 4, 0, 2, 1]);
        assert!((all.chosen - all.best[0].1).abs() < 1e-6);
    }

    #[test]
    fn two_equal_tokens_have_half_each() {
        let scores = scores(&[1.0, 1.0], 1, 1);
        assert!((scores.chosen - 0.5_f32.ln()).abs() < 1e-6);
        assert_eq!(scores.best.len(), 1);
    }

    #[test]
    fn no_alternatives_are_listed_when_none_are_asked_for() {
        assert!(scores(&[1.0, 2.0], 0, 0).best.is_empty());
    }
}
