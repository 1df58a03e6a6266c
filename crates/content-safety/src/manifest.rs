//! What `training/train.py` wrote down about the heads: which files, which encoder, where severities begin.
//!
//! Separate because it is a file format with a writer elsewhere. The heads and their thresholds belong together, so both are
//! part of the program and carry one version.

use crate::category::{Category, Scale};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Scores of four categories from a sentence embedding.
pub(crate) const TEXT_SAFETY: &[u8] = include_bytes!("../models/text-safety.onnx");
/// Score of an attack from a sentence embedding.
pub(crate) const PROMPT_SHIELD: &[u8] = include_bytes!("../models/prompt-shield.onnx");
const MANIFEST: &str = include_str!("../models/manifest.json");

/// The parts of the manifest that judging needs; the rest is for people.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Manifest {
    /// Of heads and thresholds together.
    pub(crate) version: String,
    /// What the heads were trained on.
    pub(crate) encoder: EncoderInfo,
    pub(crate) text_safety: TextSafety,
    pub(crate) prompt_shield: PromptShield,
    pub(crate) image_safety: ImageSafety,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct EncoderInfo {
    /// Catalog name of the model whose embeddings the heads understand.
    pub(crate) name: String,
    /// Numbers in an embedding.
    pub(crate) width: usize,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TextSafety {
    /// Where severities begin, by category.
    pub(crate) scales: BTreeMap<String, Scale>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PromptShield {
    /// From which score on a short text is an attack.
    pub(crate) threshold: f32,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ImageSafety {
    /// Where severities of sexual content begin.
    pub(crate) sexual: Scale,
}

impl Manifest {
    pub(crate) fn embedded() -> Result<Self, String> {
        let manifest: Self = serde_json::from_str(MANIFEST).map_err(|error| error.to_string())?;
        for category in Category::ALL {
            if manifest.scale(category).is_none() {
                return Err(format!("no scale for `{}`", category.as_str()));
            }
        }
        Ok(manifest)
    }

    pub(crate) fn scale(&self, category: Category) -> Option<Scale> {
        self.text_safety.scales.get(category.as_str()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::category::Severity;

    #[test]
    fn the_embedded_manifest_is_complete() {
        let manifest = Manifest::embedded().unwrap();
        assert_eq!(
            (manifest.encoder.name.as_str(), manifest.encoder.width),
            ("all-minilm-l6-v2", 384)
        );
        assert!(manifest.prompt_shield.threshold > 0.0 && manifest.prompt_shield.threshold < 1.0);
        for category in Category::ALL {
            let scale = manifest.scale(category).unwrap();
            assert_eq!(scale.severity(0.0), Severity::SAFE);
            assert!(scale.severity(1.0) >= Severity::new(6), "{category:?} can never be high");
        }
    }
}
