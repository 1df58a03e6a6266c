//! Named tensors, read as floats a few rows at a time.
//!
//! Separate from the exporters, which do not care in which format weights were published. Rows instead of whole tensors,
//! because a word table of 250,000 rows is 384 MB as floats and a quantised copy of it a quarter.

use std::ops::Range;

use safetensors::{Dtype, SafeTensors, tensor::Metadata};

use super::ConvertError;

/// A source of tensors.
pub(super) trait Weights {
    /// Dimensions of the tensor.
    fn shape(&self, name: &str) -> Result<Vec<usize>, ConvertError>;
    /// Some rows of the tensor (elements, when it has one dimension), one after the other.
    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, ConvertError>;

    /// The whole tensor, which must have these dimensions.
    fn all(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ConvertError> {
        let found = self.shape(name)?;
        if found != shape {
            return Err(ConvertError::new(format!(
                "tensor `{name}` has the shape {found:?} instead of {shape:?}"
            )));
        }
        self.rows(name, 0..shape.first().copied().unwrap_or(1))
    }
}

/// A safetensors file in memory.
#[derive(Debug)]
pub(super) struct Safetensors {
    file: Vec<u8>,
    data: usize,
    metadata: Metadata,
}

impl Safetensors {
    /// Checks the header.
    pub(super) fn new(file: Vec<u8>) -> Result<Self, ConvertError> {
        let wrong = |e: safetensors::SafeTensorError| {
            ConvertError::new(format!("not a safetensors file: {e}"))
        };
        let (header, metadata) = SafeTensors::read_metadata(&file).map_err(wrong)?;
        // The header begins after its own length in eight bytes.
        Ok(Self { data: header + 8, file, metadata })
    }

    fn info(&self, name: &str) -> Result<&safetensors::tensor::TensorInfo, ConvertError> {
        // Models saved with a task head carry the encoder's name in front.
        let found =
            self.metadata.info(name).or_else(|| self.metadata.info(&format!("bert.{name}")));
        found.ok_or_else(|| ConvertError::new(format!("there is no tensor `{name}`")))
    }
}

impl Weights for Safetensors {
    fn shape(&self, name: &str) -> Result<Vec<usize>, ConvertError> {
        Ok(self.info(name)?.shape.clone())
    }

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, ConvertError> {
        let info = self.info(name)?;
        let row: usize = info.shape.iter().skip(1).product();
        let (begin, _) = info.data_offsets;
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the types are the library's, and it may add some"
        )]
        let (size, decode): (usize, fn(&[u8]) -> f32) = match info.dtype {
            Dtype::F32 => (4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Dtype::F16 => (2, |b| half(u16::from_le_bytes([b[0], b[1]]))),
            Dtype::BF16 => {
                (2, |b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16))
            }
            other => {
                return Err(ConvertError::new(format!("tensor `{name}` has the type {other:?}")));
            }
        };
        let at = |r: usize| self.data + begin + r * row * size;
        let bytes = self.file.get(at(rows.start)..at(rows.end));
        let bytes =
            bytes.ok_or_else(|| ConvertError::new(format!("tensor `{name}` ends too early")))?;
        Ok(bytes.chunks_exact(size).map(decode).collect())
    }
}

/// A 16-bit float.
pub(super) fn half(bits: u16) -> f32 {
    /// 2^-24: the least step of a half without exponent.
    const SUBNORMAL: f32 = 1.0 / 16_777_216.0;
    let sign = u32::from(bits & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(bits >> 10) & 0x1f, u32::from(bits) & 0x3ff);
    match exponent {
        0 => {
            let value = f32::from(bits & 0x3ff) * SUBNORMAL;
            f32::from_bits(value.to_bits() | sign)
        }
        0x1f => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        // 112 = 127 - 15: the difference of the exponents' biases.
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A safetensors file of small, distinct numbers.
    pub(in crate::convert) fn file(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (i, (name, shape)) in tensors.iter().enumerate() {
            let begin = data.len();
            for j in 0..shape.iter().product::<usize>() {
                let value = ((i * 31 + j * 17) % 23) as f32 / 23.0 - 0.5;
                data.extend(value.to_le_bytes());
            }
            let info = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
            header.insert(name.clone(), info);
        }
        let header = serde_json::to_vec(&header).unwrap();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend(data);
        file
    }

    #[test]
    fn rows_of_a_tensor_are_found_and_a_missing_one_is_named() {
        let weights =
            Safetensors::new(file(&[("a".into(), vec![2]), ("bert.b".into(), vec![3, 2])]))
                .unwrap();
        assert_eq!(weights.shape("b").unwrap(), [3, 2]);
        let (all, last) = (weights.all("b", &[3, 2]).unwrap(), weights.rows("b", 2..3).unwrap());
        assert_eq!(all[4..], last);
        assert!(weights.rows("b", 2..4).is_err());
        assert!(weights.all("c", &[1]).unwrap_err().to_string().contains("`c`"));
    }

    #[test]
    fn halves_are_exact() {
        let cases = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x0001, 2f32.powi(-24)),
            (0x7bff, 65504.0),
            (0x8000, -0.0),
        ];
        for (bits, value) in cases {
            assert_eq!(half(bits).to_bits(), f32::to_bits(value));
        }
        assert!(half(0x7c00).is_infinite() && half(0x7e00).is_nan());
    }
}
