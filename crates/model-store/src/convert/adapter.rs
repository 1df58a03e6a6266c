//! Weights with a low-rank adapter folded in.
//!
//! Separate from the exporters, which see one set of weights. An adapter is what a fine-tuning changed: for a linear layer
//! `NAME` two thin matrices `NAME.a` (`[inputs, rank]`) and `NAME.b` (`[rank, outputs]`), whose product is added to
//! `NAME.weight`; tensors of other names stand for themselves. Sums run in a fixed order, so the bytes are the same everywhere.

use std::ops::Range;

use super::ConvertError;
use super::weights::{Safetensors, Weights};

/// Adapters that are part of this program: small, and published nowhere else.
const BUILT_IN: [(&str, &[u8]); 1] =
    [("koine-safety.safetensors", include_bytes!("../../data/koine-safety.safetensors"))];

/// The built-in adapter of that name.
pub(super) fn built_in(name: &str) -> Option<&'static [u8]> {
    BUILT_IN.into_iter().find(|(n, _)| *n == name).map(|(_, file)| file)
}

/// A base and its adapter.
#[derive(Debug)]
pub(super) struct Adapted {
    pub(super) base: Safetensors,
    pub(super) adapter: Safetensors,
}

impl Adapted {
    /// What is added to some rows (outputs) of the matrix `layer`; none where the adapter has nothing for it.
    fn change(
        &self,
        layer: &str,
        shape: &[usize],
        rows: &Range<usize>,
    ) -> Result<Option<Vec<f32>>, ConvertError> {
        let (a, b) = (format!("{layer}.a"), format!("{layer}.b"));
        let Ok(thin) = self.adapter.shape(&a) else { return Ok(None) };
        let ([outputs, inputs], [_, rank]) = (shape, &thin[..]) else {
            return Err(ConvertError::new(format!("the adapter of `{layer}` is for a matrix")));
        };
        let a = self.adapter.all(&a, &[*inputs, *rank])?;
        let b = self.adapter.all(&b, &[*rank, *outputs])?;
        let mut change = Vec::with_capacity(rows.len() * inputs);
        for output in rows.clone() {
            let column: Vec<f32> = b.iter().skip(output).step_by(*outputs).copied().collect();
            let product =
                |row: &[f32]| row.iter().zip(&column).fold(0.0, |sum, (x, y)| sum + x * y);
            change.extend(a.chunks_exact(*rank).map(product));
        }
        Ok(Some(change))
    }
}

impl Weights for Adapted {
    fn shape(&self, name: &str) -> Result<Vec<usize>, ConvertError> {
        self.adapter.shape(name).or_else(|_| self.base.shape(name))
    }

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, ConvertError> {
        if self.adapter.shape(name).is_ok() {
            return self.adapter.rows(name, rows);
        }
        let mut values = self.base.rows(name, rows.clone())?;
        let Some(layer) = name.strip_suffix(".weight") else { return Ok(values) };
        if let Some(change) = self.change(layer, &self.base.shape(name)?, &rows)? {
            values.iter_mut().zip(change).for_each(|(value, change)| *value += change);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::super::weights::tests::file;
    use super::*;

    fn adapted(adapter: &[(&str, &[usize])]) -> Adapted {
        let read = |tensors: &[(&str, &[usize])]| {
            let tensors: Vec<_> =
                tensors.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec())).collect();
            Safetensors::new(file(&tensors)).unwrap()
        };
        Adapted { base: read(&[("l.weight", &[3, 2]), ("l.bias", &[3])]), adapter: read(adapter) }
    }

    #[test]
    fn the_product_of_the_thin_matrices_is_added() {
        let both = adapted(&[("l.a", &[2, 1]), ("l.b", &[1, 3])]);
        let (a, b) = (both.adapter.all("l.a", &[2, 1]), both.adapter.all("l.b", &[1, 3]));
        let (a, b, base) = (a.unwrap(), b.unwrap(), both.base.all("l.weight", &[3, 2]).unwrap());
        let sum = both.all("l.weight", &[3, 2]).unwrap();
        for (at, value) in sum.iter().enumerate() {
            assert_eq!(*value, base[at] + a[at % 2] * b[at / 2]);
        }
        assert_eq!(both.rows("l.weight", 1..2).unwrap(), sum[2..4]);
        assert_eq!(both.all("l.bias", &[3]).unwrap(), both.base.all("l.bias", &[3]).unwrap());
    }

    #[test]
    fn tensors_of_the_adapter_stand_for_themselves() {
        let both = adapted(&[("look", &[2, 2])]);
        assert_eq!(both.shape("look").unwrap(), [2, 2]);
        assert_eq!(both.all("look", &[2, 2]).unwrap(), both.adapter.all("look", &[2, 2]).unwrap());
        assert!(both.shape("l.c").is_err());
    }

    #[test]
    fn an_adapter_of_another_size_is_refused() {
        let both = adapted(&[("l.a", &[4, 1]), ("l.b", &[1, 3])]);
        let error = both.all("l.weight", &[3, 2]).unwrap_err().to_string();
        assert!(error.contains("l.a") && error.contains("[2, 1]"), "{error}");
    }
}
