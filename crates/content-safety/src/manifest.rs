//! What `training/` wrote down about the encoder that judges: which model, and where severities and attacks begin.
//!
//! Separate because it is a file format with a writer elsewhere. Thresholds belong to weights: they carry one version, and the
//! catalog pins the weights by their checksum.

use crate::category::{Category, Scale};
use serde::Deserialize;
use std::collections::BTreeMap;

const MANIFEST: &str = include_str!("../models/manifest.json");

/// The parts of the manifest that judging needs; the rest is for people.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Manifest {
    /// Of weights and thresholds together.
    pub(crate) version: String,
    /// What the thresholds are for.
    pub(crate) encoder: EncoderInfo,
    pub(crate) text_safety: TextSafety,
    pub(crate) prompt_shield: PromptShield,
    pub(crate) image_safety: ImageSafety,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct EncoderInfo {
    /// Catalog name of the model that judges texts.
    pub(crate) name: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TextSafety {
    /// Where severities begin, by category.
    pub(crate) scales: BTreeMap<String, Scale>,
}

/// From which score on a text is an attack.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PromptShield {
    /// In the user's own words.
    pub(crate) jailbreak: f32,
    /// In a document or the result of a tool.
    pub(crate) indirect: f32,
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
        assert_eq!(manifest.encoder.name, "koine-safety-minilm");
        for threshold in [manifest.prompt_shield.jailbreak, manifest.prompt_shield.indirect] {
            assert!(threshold > 0.0 && threshold < 1.0);
        }
        for category in Category::ALL {
            let scale = manifest.scale(category).unwrap();
            assert_eq!(scale.severity(0.0), Severity::SAFE);
            assert!(scale.severity(1.0) >= Severity::new(6), "{category:?} can never be high");
        }
    }
}
