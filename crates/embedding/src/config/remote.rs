//! An entry of `embedding.remote`: a model that a server elsewhere answers for.
//!
//! In a file of its own because it shares nothing with the local models' options. Entries of a list cannot take defaults from
//! `config.toml`, so the defaults are here, and the commented example there states each of them.

use crate::embedder::Purpose;
use chassis::Problems;
use chassis::config::Secret;
use serde::Deserialize;
use std::path::PathBuf;
use upstream::Options;

/// For `/info`, which must name somebody.
const PUBLISHER: &str = "unknown";
/// Passes every extra parameter on.
const ANY: &str = "*";

/// An entry of `embedding.remote`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// Name that requests use.
    pub name: String,
    /// Where it is served, up to and including `/v1`; at least one.
    pub base_urls: Vec<String>,
    /// Shares of the calls, one per base URL; empty is equal shares.
    #[serde(default)]
    pub weights: Vec<u32>,
    /// The server's own name of the model; absent is `name`.
    pub model: Option<String>,
    /// Sent as `Authorization: Bearer`.
    pub api_key: Option<Secret>,
    /// A file that holds the key.
    pub api_key_file: Option<PathBuf>,
    /// Who published the model.
    #[serde(default = "publisher")]
    pub publisher: String,
    /// Length of the vectors.
    pub dimensions: u32,
    /// Other lengths that may be asked for.
    #[serde(default)]
    pub shorter_dimensions: Vec<u32>,
    /// Every length up to `dimensions` may be asked for.
    #[serde(default)]
    pub any_dimensions: bool,
    /// Longest text in tokens; 0 is unknown.
    #[serde(default)]
    pub max_tokens: u32,
    /// What the server takes as `input_type`, besides plain text.
    #[serde(default)]
    pub input_types: Vec<Purpose>,
    /// Extra parameters that are passed on; `*` is any.
    #[serde(default = "any")]
    pub extra_parameters: Vec<String>,
    /// Texts of one call; 0 is all of a request.
    #[serde(default)]
    pub batch: usize,
    /// Patience and repetition.
    #[serde(default)]
    pub connection: Options,
}

impl RemoteConfig {
    /// Notes what cannot work; `option` is the entry's own path, such as `remote.0`.
    pub(super) fn check(&self, option: &str, problems: &mut Problems) {
        let mut need = |name: &str, fine: bool, expected: &str| {
            if !fine {
                problems.add(&format!("{option}.{name}"), expected);
            }
        };
        need("name", !self.name.is_empty(), "must not be empty");
        need("base_urls", !self.base_urls.is_empty(), "name at least one");
        let weights = self.weights.len();
        let fits = weights == 0 || weights == self.base_urls.len();
        need("weights", fits, "must be one per base URL");
        need("weights", !self.weights.contains(&0), "each must be at least 1");
        let keys = usize::from(self.api_key.is_some()) + usize::from(self.api_key_file.is_some());
        need("api_key", keys < 2, "give this or `api_key_file`, not both");
        need("dimensions", self.dimensions > 0, "must be at least 1");
        for (name, expected) in self.connection.problems() {
            need(&format!("connection.{name}"), false, expected);
        }
    }
}

fn publisher() -> String {
    PUBLISHER.to_owned()
}

fn any() -> Vec<String> {
    vec![ANY.to_owned()]
}
