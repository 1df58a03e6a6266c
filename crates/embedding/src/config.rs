//! The options of `config.toml` as types.
//!
//! Separate so that an option is found in two places only: its documentation there, its type here. Nothing here touches files.

mod remote;

pub use remote::RemoteConfig;

use chassis::grpc::DoorConfig;
use chassis::{Configured, Problems, ServiceConfig};
use model_store::StoreConfig;
use serde::Deserialize;

/// The table `embedding`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Catalog names of the models.
    pub serve: Vec<String>,
    /// Models that servers elsewhere answer for.
    #[serde(default)]
    pub remote: Vec<RemoteConfig>,
    /// What happens to a text that is too long.
    pub overflow: Overflow,
    /// The part that every service has.
    pub service: ServiceConfig,
    /// Who may enter.
    pub door: DoorConfig,
    /// ONNX Runtime.
    pub runtime: RuntimeConfig,
    /// How much at once.
    pub batch: BatchConfig,
    /// What one request may ask for.
    pub limits: Limits,
    /// Where models are kept and fetched from.
    pub models: StoreConfig,
}

/// What happens to a text that is longer than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// Its beginning is embedded.
    Truncate,
    /// The request is refused.
    Refuse,
}

/// The table `embedding.runtime`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Path of the library; empty for the catalog's.
    pub library: String,
    /// Threads per model; 0 is half of the cores.
    pub threads: usize,
    /// Where models run.
    pub device: Device,
}

/// Where models run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// The processor.
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
}

/// The table `embedding.batch`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Rows × tokens of the longest in one batch.
    pub tokens: usize,
    /// Tokens that may wait per model.
    pub queue_tokens: usize,
    /// Images in one batch.
    pub images: usize,
    /// Images that may wait per model.
    pub queue_images: usize,
}

/// The table `embedding.limits`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most texts or images of one request.
    pub inputs: usize,
    /// Largest image file.
    pub image_bytes: usize,
    /// Most pixels of an image.
    pub image_pixels: u64,
}

impl Configured for Config {
    fn service(&self) -> &ServiceConfig {
        &self.service
    }

    fn check(&self, problems: &mut Problems) {
        self.door.check(problems);
        if self.serve.is_empty() && self.remote.is_empty() {
            problems.add("serve", "name at least one model, here or in `embedding.remote`");
        }
        for (index, remote) in self.remote.iter().enumerate() {
            let option = format!("remote.{index}");
            let others = self.remote.iter().take(index).map(|other| &other.name);
            if self.serve.iter().chain(others).any(|name| name.eq_ignore_ascii_case(&remote.name)) {
                problems
                    .add(&format!("{option}.name"), format!("`{}` is there twice", remote.name));
            }
            remote.check(&option, problems);
        }
        let positive = [
            ("batch.tokens", self.batch.tokens),
            ("batch.queue_tokens", self.batch.queue_tokens),
            ("batch.images", self.batch.images),
            ("batch.queue_images", self.batch.queue_images),
            ("limits.inputs", self.limits.inputs),
            ("limits.image_bytes", self.limits.image_bytes),
            (
                "limits.image_pixels",
                usize::try_from(self.limits.image_pixels).unwrap_or(usize::MAX),
            ),
        ];
        for (option, value) in positive {
            if value == 0 {
                problems.add(option, "must be at least 1");
            }
        }
        if self.runtime.device == Device::Cuda && !cfg!(feature = "cuda") {
            problems.add(
                "runtime.device",
                "this program was built without the `cuda` feature; use \"cpu\"",
            );
        }
    }

    fn check_files(&self, problems: &mut Problems) {
        self.door.check_files(problems);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chassis::config::{Sources, load};

    #[test]
    fn the_defaults_are_complete_and_valid() {
        let config: Config = load("embedding", crate::DEFAULTS, &Sources::default()).unwrap();
        assert_eq!(config.serve[0], "all-minilm-l6-v2");
        assert_eq!(config.overflow, Overflow::Truncate);
        assert_eq!(config.models, StoreConfig::default());
    }

    #[test]
    fn a_remote_model_needs_little_and_its_documented_defaults_hold() {
        let entry = r#"[{ name = "m", base_urls = ["http://a/v1"], dimensions = 1024 }]"#;
        let env = vec![("EMBEDDING__REMOTE".to_owned(), entry.to_owned())];
        let sources = Sources { file: None, env };
        let config: Config = load("embedding", crate::DEFAULTS, &sources).unwrap();
        let remote = &config.remote[0];
        let lines = crate::DEFAULTS.lines().filter_map(|line| line.strip_prefix("#   "));
        let example = lines.skip_while(|line| *line != "[[embedding.remote]]").skip(1);
        let example = example.collect::<Vec<_>>().join("\n");
        let example = example.replace("[embedding.remote.connection]", "[connection]");
        let documented: RemoteConfig = toml::from_str(&example).unwrap();
        let plain = RemoteConfig {
            name: remote.name.clone(),
            base_urls: remote.base_urls.clone(),
            model: None,
            api_key: None,
            api_key_file: None,
            ..documented
        };
        assert_eq!(format!("{plain:?}"), format!("{remote:?}"));
    }

    #[test]
    fn impossible_values_are_named() {
        let env = [("EMBEDDING__SERVE", "[]"), ("EMBEDDING__BATCH__IMAGES", "0")];
        let env = env.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        let sources = Sources { file: None, env };
        let problems =
            load::<Config>("embedding", crate::DEFAULTS, &sources).unwrap_err().to_string();
        assert!(problems.contains("`embedding.serve`"), "{problems}");
        assert!(problems.contains("`embedding.batch.images`"), "{problems}");
    }
}
