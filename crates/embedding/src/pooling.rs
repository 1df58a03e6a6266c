//! Rows of a model → vectors of an answer: pool, cut, make length 1.
//!
//! Separate because it is pure arithmetic whose conventions decide whether vectors can be compared with those of others.
//! The order matters: a vector that is cut after normalising is no longer of length 1, so it is normalised again.

use onnx::RowShape;
use serde::Deserialize;

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pooling {
    /// The graph has done it.
    #[default]
    None,
    /// Their mean, special tokens included, as sentence-transformers does.
    Mean,
    /// The first one.
    Cls,
    /// The last one.
    Last,
}

/// What happens to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finish {
    pub(crate) rows: RowShape,
    pub(crate) pooling: Pooling,
    pub(crate) normalize: bool,
}

impl Finish {
    /// The vector of `row`, cut to `dimensions` where given.
    pub(crate) fn vector(&self, row: Vec<f32>, dimensions: Option<usize>) -> Vec<f32> {
        let mut vector =
            if self.rows.per_token { pool(&row, self.rows.width, self.pooling) } else { row };
        if let Some(dimensions) = dimensions.filter(|&d| d < vector.len()) {
            vector.truncate(dimensions);
        }
        if self.normalize {
            normalize(&mut vector);
        }
        vector
    }
}

fn pool(row: &[f32], width: usize, pooling: Pooling) -> Vec<f32> {
    let mut tokens = row.chunks_exact(width.max(1));
    let one = match pooling {
        Pooling::Mean => None,
        Pooling::None | Pooling::Cls => tokens.next(),
        Pooling::Last => tokens.next_back(),
    };
    if let Some(one) = one {
        return one.to_vec();
    }
    let mut sum = vec![0.0_f32; width];
    let mut count = 0.0_f32;
    for token in tokens {
        sum.iter_mut().zip(token).for_each(|(s, t)| *s += t);
        count += 1.0;
    }
    sum.iter_mut().for_each(|s| *s /= count.max(1.0));
    sum
}

/// Length 1, or all zeros when it has no length.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
    if length > 0.0 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "each component is at most 1 after the division"
        )]
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(pooling: Pooling, normalize: bool) -> Finish {
        Finish { rows: RowShape { width: 2, per_token: true }, pooling, normalize }
    }

    #[test]
    fn mean_first_and_last_pool_the_tokens() {
        let row = vec![1.0, 2.0, 3.0, 4.0, 8.0, 0.0];
        assert_eq!(finish(Pooling::Mean, false).vector(row.clone(), None), [4.0, 2.0]);
        assert_eq!(finish(Pooling::Cls, false).vector(row.clone(), None), [1.0, 2.0]);
        assert_eq!(finish(Pooling::Last, false).vector(row, None), [8.0, 0.0]);
    }

    #[test]
    fn a_cut_vector_has_length_one_again() {
        let rows = RowShape { width: 3, per_token: false };
        let finish = Finish { rows, pooling: Pooling::None, normalize: true };
        assert_eq!(finish.vector(vec![3.0, 4.0, 12.0], Some(2)), [0.6, 0.8]);
        assert_eq!(finish.vector(vec![0.0, 0.0, 0.0], None), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn without_normalising_the_graphs_vector_is_left_alone() {
        let rows = RowShape { width: 2, per_token: false };
        let finish = Finish { rows, pooling: Pooling::None, normalize: false };
        assert_eq!(finish.vector(vec![3.0, 4.0], None), [3.0, 4.0]);
    }
}
