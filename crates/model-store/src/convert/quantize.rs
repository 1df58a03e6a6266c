//! Weights in 8 bits: one scale a row, no offset.
//!
//! Separate from the exporters, so that a number format is one decision in one place. A row of a linear layer is an output
//! channel, a row of a table is a word: one scale for each loses less than one for all.

use super::ConvertError;
use super::graph::{Graph, int};
use super::onnx::data_type;
use super::weights::Weights;

/// Largest magnitude of a quantised weight; -128 is left out to be symmetric.
const LARGEST: f32 = 127.0;
/// Rows of a table that are read at once.
const ROWS: usize = 4096;

/// Rows of 8-bit numbers with their scales.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rows {
    pub(super) values: Vec<i8>,
    pub(super) scales: Vec<f32>,
}

impl Rows {
    /// Quantises rows of `width` numbers.
    pub(super) fn push(&mut self, rows: &[f32], width: usize) {
        for row in rows.chunks(width) {
            let largest = row.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            let scale = if largest > 0.0 { largest / LARGEST } else { 1.0 };
            self.scales.push(scale);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "within -127..=127 by the choice of the scale"
            )]
            self.values.extend(row.iter().map(|v| (v / scale).round_ties_even() as i8));
        }
    }
}

/// Looks up rows of the table `name` by `indices`.
pub(super) fn gather(
    graph: &mut Graph,
    weights: &dyn Weights,
    name: &str,
    indices: &str,
) -> Result<String, ConvertError> {
    let shape = weights.shape(name)?;
    let [height, width] = shape[..] else {
        return Err(ConvertError::new(format!("tensor `{name}` is no table: {shape:?}")));
    };
    let mut table = Rows::default();
    for begin in (0..height).step_by(ROWS) {
        table.push(&weights.rows(name, begin..height.min(begin + ROWS))?, width);
    }
    let (values, scales) =
        (graph.bytes(&shape, &table.values), graph.floats(&[height, 1], &table.scales));
    let rows = graph.op("Gather", &[&values, indices], vec![int("axis", 0)]);
    let rows = graph.op("Cast", &[&rows], vec![int("to", i64::from(data_type::FLOAT))]);
    let scales = graph.op("Gather", &[&scales, indices], vec![int("axis", 0)]);
    Ok(graph.op("Mul", &[&rows, &scales], vec![]))
}

/// An activation in 8 bits: values, scale, offset.
pub(super) type Activation = [String; 3];

/// Quantises `x` while the graph runs, to the range that it has then.
pub(super) fn activation(graph: &mut Graph, x: &str) -> Activation {
    graph.op_many("DynamicQuantizeLinear", &[x], vec![])
}

/// The product of an activation and a matrix given as `[outputs, inputs]`. The order of operators is the one that
/// ONNX Runtime fuses into a single kernel.
pub(super) fn matmul(graph: &mut Graph, x: &Activation, matrix: &[f32], inputs: usize) -> String {
    let mut rows = Rows::default();
    rows.push(matrix, inputs);
    let outputs = rows.scales.len();
    let columns = graph.bytes(&[inputs, outputs], &transpose(&rows.values, inputs));
    let scales = graph.floats(&[outputs], &rows.scales);
    let [values, scale, offset] = x;
    let product = graph.op("MatMulInteger", &[values, &columns, offset], vec![]);
    let product = graph.op("Cast", &[&product], vec![int("to", i64::from(data_type::FLOAT))]);
    let scale = graph.op("Mul", &[scale, &scales], vec![]);
    graph.op("Mul", &[&product, &scale], vec![])
}

/// The matrix with rows of `width` numbers, turned.
pub(super) fn transpose<T: Copy>(matrix: &[T], width: usize) -> Vec<T> {
    (0..width).flat_map(|c| matrix.iter().skip(c).step_by(width).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_uses_its_whole_range() {
        let mut rows = Rows::default();
        rows.push(&[1.0, -0.5, 0.0, 200.0, -400.0, 3.0, 0.0, 0.0, 0.0], 3);
        assert_eq!(rows.values, [127, -64, 0, 64, -127, 1, 0, 0, 0]);
        assert_eq!(rows.scales, [1.0 / 127.0, 400.0 / 127.0, 1.0]);
    }

    #[test]
    fn transposing_turns_rows_into_columns() {
        assert_eq!(transpose(&[1, 2, 3, 4, 5, 6], 3), [1, 4, 2, 5, 3, 6]);
    }
}
