//! Reads the tensors of a PyTorch checkpoint, in its old format and in the zip format since PyTorch 1.6.
//!
//! Separate from the pickle reader, which knows values but not what PyTorch means by them.
//! Every size in the file is checked against the bytes that are there before it is believed.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};

use super::ConvertError;
use super::pickle::{self, Pickle, Value};
use super::weights::half;

/// How an old checkpoint begins: a number of ten bytes.
const OLD_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Pickles before the tensors of an old checkpoint: magic number, version, kind of machine.
const OLD_PREAMBLE: usize = 3;
/// Name of the pickle in a checkpoint of the zip format, below a folder of any name.
const ZIP_PICKLE: &str = "/data.pkl";

/// A tensor of floats.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<f32>,
}

/// The float tensors of a checkpoint by name; counters in whole numbers are left out.
pub(super) type Checkpoint = BTreeMap<String, Tensor>;

/// Bytes of the storages, by key.
type Storages = BTreeMap<String, Vec<u8>>;

/// Reads a checkpoint of either format.
pub(super) fn read(file: &[u8]) -> Result<Checkpoint, ConvertError> {
    let (state, storages) = if file.starts_with(b"PK") { read_zip(file)? } else { read_old(file)? };
    let mut tensors = Checkpoint::new();
    for pair in state.members(&state.root).chunks_exact(2) {
        let [Value::Text(name), value @ Value::Tensor(_)] = pair else { continue };
        if let Some(tensor) =
            tensor(&state, value, &storages).ok_or_else(|| wrong(&format!("tensor `{name}`")))?
        {
            tensors.insert(name.to_string(), tensor);
        }
    }
    if tensors.is_empty() { Err(wrong("content: no tensors")) } else { Ok(tensors) }
}

fn wrong(what: &str) -> ConvertError {
    ConvertError::new(format!("not a checkpoint of plain tensors: unexpected {what}"))
}

/// Pickles and storages one after the other.
fn read_old(file: &[u8]) -> Result<(Pickle, Storages), ConvertError> {
    let mut at = 0;
    let mut next = || {
        let pickle = pickle::read(&file[at..])?;
        at += pickle.length;
        Ok::<_, ConvertError>(pickle)
    };
    for i in 0..OLD_PREAMBLE {
        let pickle = next()?;
        if i == 0 && pickle.root != Value::Long(OLD_MAGIC.into()) {
            return Err(wrong("beginning"));
        }
    }
    let (state, keys) = (next()?, next()?);
    let sizes = storage_sizes(&state);
    let mut storages = Storages::new();
    for key in keys.members(&keys.root) {
        let Value::Text(key) = key else { return Err(wrong("key")) };
        let size = *sizes.get(&**key).ok_or_else(|| wrong("key"))?;
        let count = file.get(at..at + 8).ok_or_else(|| wrong("end"))?;
        let count = count.iter().rev().fold(0_usize, |n, b| (n << 8) | usize::from(*b));
        at += 8;
        let end = count.checked_mul(size).and_then(|bytes| at.checked_add(bytes));
        let bytes = end.and_then(|end| file.get(at..end)).ok_or_else(|| wrong("end"))?;
        storages.insert(key.to_string(), bytes.to_vec());
        at += bytes.len();
    }
    Ok((state, storages))
}

/// A pickle and a member for each storage.
fn read_zip(file: &[u8]) -> Result<(Pickle, Storages), ConvertError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(file)).map_err(|e| wrong(&e.to_string()))?;
    let root = archive.file_names().find_map(|n| n.strip_suffix(ZIP_PICKLE)).map(str::to_owned);
    let root = root.ok_or_else(|| wrong("archive"))?;
    let mut member = |name: &str| {
        let mut bytes = Vec::new();
        let mut member =
            archive.by_name(&format!("{root}/{name}")).map_err(|e| wrong(&e.to_string()))?;
        member.read_to_end(&mut bytes).map_err(|e| wrong(&e.to_string()))?;
        Ok::<_, ConvertError>(bytes)
    };
    let state = pickle::read(&member("data.pkl")?)?;
    let mut storages = Storages::new();
    for key in storage_sizes(&state).into_keys() {
        let bytes = member(&format!("data/{key}"))?;
        storages.insert(key, bytes);
    }
    Ok((state, storages))
}

/// Bytes per element of every storage that the tensors refer to, by key.
fn storage_sizes(state: &Pickle) -> BTreeMap<String, usize> {
    let tensors = state.members(&state.root).iter().filter(|v| matches!(v, Value::Tensor(_)));
    let storages = tensors.filter_map(|t| storage(state, state.members(t).first()?));
    storages.filter_map(|(key, kind)| Some((key, element(&kind)?.0))).collect()
}

/// Key and type of a storage: `("storage", type, key, location, elements)`.
fn storage(state: &Pickle, value: &Value) -> Option<(String, String)> {
    let (Value::Persistent(_), [_, Value::Global(kind), Value::Text(key), ..]) =
        (value, state.members(value))
    else {
        return None;
    };
    Some((key.to_string(), kind.rsplit('.').next()?.to_owned()))
}

type Decode = fn(&[u8]) -> f32;

/// Bytes per element, and how floats are read; whole numbers have no reader.
fn element(storage: &str) -> Option<(usize, Option<Decode>)> {
    match storage {
        "FloatStorage" => Some((4, Some(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])))),
        "HalfStorage" => Some((2, Some(|b| half(u16::from_le_bytes([b[0], b[1]]))))),
        "BFloat16Storage" => {
            Some((2, Some(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16))))
        }
        "LongStorage" | "DoubleStorage" => Some((8, None)),
        "IntStorage" => Some((4, None)),
        "ByteStorage" | "CharStorage" | "BoolStorage" => Some((1, None)),
        _ => None,
    }
}

/// A tensor from `(storage, offset, shape, strides, ...)`; the inner none is one that is not of floats.
fn tensor(state: &Pickle, value: &Value, storages: &Storages) -> Option<Option<Tensor>> {
    let [source, Value::Int(offset), shape, strides, ..] = state.members(value) else {
        return None;
    };
    let (key, kind) = storage(state, source)?;
    let (size, Some(decode)) = element(&kind)? else { return Some(None) };
    let sizes = |value| -> Option<Vec<usize>> {
        let whole = |v: &Value| if let Value::Int(n) = v { usize::try_from(*n).ok() } else { None };
        state.members(value).iter().map(whole).collect()
    };
    let (shape, strides) = (sizes(shape)?, sizes(strides)?);
    let (bytes, offset) = (storages.get(&key)?, usize::try_from(*offset).ok()?);
    let count = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d))?;
    // No tensor of a checkpoint shows an element twice; so a shape cannot ask for more memory than the file has.
    if shape.len() != strides.len() || count > bytes.len() / size {
        return None;
    }
    let mut data = Vec::with_capacity(count);
    for number in 0..count {
        let (mut rest, mut at) = (number, offset);
        for (dim, stride) in shape.iter().zip(&strides).rev() {
            at = at.checked_add((rest % dim).checked_mul(*stride)?)?;
            rest /= dim;
        }
        let begin = at.checked_mul(size)?;
        data.push(decode(bytes.get(begin..begin.checked_add(size)?)?));
    }
    Some(Some(Tensor { shape, data }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// `{"w": tensor of shape (2, 3) with strides (1, 2)}` on a storage of six floats called `s`.
    const STATE: &[u8] = b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00sX\x03\x00\x00\x00cpuK\x06NtQK\x00K\x02K\x03\x86K\x01K\x02\x86\x89ccollections\nOrderedDict\n)RtRu.";

    fn storage() -> Vec<u8> {
        [0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0].iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn old() -> Vec<u8> {
        let mut file = b"\x80\x02\x8a\x0a".to_vec();
        file.extend(OLD_MAGIC);
        file.extend(b".\x80\x02M\xe9\x03.\x80\x02}.");
        file.extend(STATE);
        file.extend(b"\x80\x02]X\x01\x00\x00\x00sa.");
        file.extend(6_u64.to_le_bytes());
        file.extend(storage());
        file
    }

    fn zipped() -> Vec<u8> {
        let mut archive = zip::ZipWriter::new(Cursor::new(vec![]));
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        for (name, content) in [("m/data.pkl", STATE), ("m/data/s", &storage())] {
            archive.start_file(name, options).unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    #[test]
    fn both_formats_give_the_same_tensor_with_its_strides_applied() {
        for file in [old(), zipped()] {
            let tensors = read(&file).unwrap();
            let expected = Tensor { shape: vec![2, 3], data: vec![0.0, 2.0, 4.0, 1.0, 3.0, 5.0] };
            assert_eq!(tensors.into_iter().collect::<Vec<_>>(), [("w".to_owned(), expected)]);
        }
    }

    #[test]
    fn a_cut_file_is_an_error_wherever_it_ends() {
        let file = old();
        for end in 0..file.len() {
            assert!(read(&file[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_shape_larger_than_its_storage_is_refused() {
        let mut file = old();
        let at = file.windows(4).position(|w| w == b"K\x02K\x03").unwrap();
        file[at + 1] = 200;
        assert!(read(&file).unwrap_err().to_string().contains("`w`"));
    }
}
