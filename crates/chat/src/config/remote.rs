//! An entry of `chat.remote`: a model that a server elsewhere answers for.
//!
//! In a file of its own because it shares nothing with the engine's options. Entries of a list cannot take defaults from
//! `config.toml`, so the defaults are constants here, and the commented example there states each of them.

use crate::backend::ParameterLimit;
use chassis::Problems;
use chassis::config::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use upstream::Options;

/// For `/info`, which must name somebody.
const PUBLISHER: &str = "unknown";
/// Passes every extra parameter on.
const ANY: &str = "*";
/// Parameters that may have a limit: `ParameterLimit` in `proto/inference/chat/v1/chat.proto`.
const LIMITED: [&str; 9] = [
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "max_tokens",
    "n",
    "seed",
    "stop",
    "logit_bias",
];

/// An entry of `chat.remote`.
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
    /// Tokens of prompt and answer together; 0 is unknown.
    #[serde(default)]
    pub context_tokens: u32,
    /// Serves conversations.
    #[serde(default = "yes")]
    pub chat: bool,
    /// Serves prompts.
    #[serde(default)]
    pub completions: bool,
    /// Understands tools.
    #[serde(default)]
    pub tools: bool,
    /// Can be held to any JSON object.
    #[serde(default)]
    pub json_object: bool,
    /// Can be held to a JSON Schema.
    #[serde(default)]
    pub json_schema: bool,
    /// Understands images.
    #[serde(default)]
    pub images: bool,
    /// Understands sound.
    #[serde(default)]
    pub audio: bool,
    /// Reports log probabilities.
    #[serde(default)]
    pub logprobs: bool,
    /// Extra parameters that are passed on; `*` is any.
    #[serde(default = "any")]
    pub extra_parameters: Vec<String>,
    /// Sampling parameters of which it takes less than the API allows, by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, ParameterLimit>,
    /// Takes prompts with a suffix.
    #[serde(default)]
    pub suffix: bool,
    /// Send `max_completion_tokens` in place of `max_tokens`.
    #[serde(default)]
    pub max_completion_tokens: bool,
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
        need(
            "weights",
            weights == 0 || weights == self.base_urls.len(),
            "must be one per base URL",
        );
        need("weights", !self.weights.contains(&0), "each must be at least 1");
        let keys = usize::from(self.api_key.is_some()) + usize::from(self.api_key_file.is_some());
        need("api_key", keys < 2, "give this or `api_key_file`, not both");
        need("chat", self.chat || self.completions, "one of `chat` and `completions` must be true");
        for name in self.parameters.keys().filter(|name| !LIMITED.contains(&name.as_str())) {
            let expected = format!("is none of `{}`", LIMITED.join("`, `"));
            need(&format!("parameters.{name}"), false, &expected);
        }
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

const fn yes() -> bool {
    true
}
