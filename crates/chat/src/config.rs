//! The options of `config.toml` as types.
//!
//! Separate so that an option is found in two places only: its documentation there, its type here. Nothing here touches files.

mod remote;

pub use remote::RemoteConfig;

use chassis::grpc::DoorConfig;
use chassis::{Configured, Problems, ServiceConfig};
use model_store::StoreConfig;
use serde::Deserialize;

/// Fewer tokens of context hold no conversation.
const LEAST_CONTEXT: u32 = 64;
/// llama.cpp's limit of sequences in one context.
const MOST_PARALLEL: usize = 256;
/// More tokens in one step take seconds, in which nobody can leave.
const MOST_BATCH: u32 = 8192;

/// The table `chat`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The part that every service has.
    pub service: ServiceConfig,
    /// Who may enter.
    pub door: DoorConfig,
    /// Models that this process runs.
    #[serde(default)]
    pub local: Vec<LocalConfig>,
    /// Models that servers elsewhere answer for.
    #[serde(default)]
    pub remote: Vec<RemoteConfig>,
    /// What the local models start from.
    pub engine: EngineConfig,
    /// Where models are kept and fetched from.
    pub models: StoreConfig,
}

/// An entry of `chat.local`: the options of `chat.engine` are overridden where set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalConfig {
    /// Name in the catalog.
    pub name: String,
    /// See `EngineConfig`.
    pub context_tokens: Option<u32>,
    /// See `EngineConfig`.
    pub cache_tokens: Option<u32>,
    /// See `EngineConfig`.
    pub parallel: Option<usize>,
    /// See `EngineConfig`.
    pub queue: Option<usize>,
    /// See `EngineConfig`.
    pub queue_timeout_ms: Option<u64>,
    /// See `EngineConfig`.
    pub reader_timeout_ms: Option<u64>,
    /// See `EngineConfig`.
    pub threads: Option<usize>,
    /// See `EngineConfig`.
    pub batch_tokens: Option<u32>,
    /// See `EngineConfig`.
    pub prefill_tokens: Option<u32>,
    /// See `EngineConfig`.
    pub gpu_layers: Option<u32>,
    /// See `SamplingConfig`.
    #[serde(default)]
    pub sampling: LocalSampling,
}

/// The table `sampling` of an entry of `chat.local`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalSampling {
    /// See `SamplingConfig`.
    pub temperature: Option<f32>,
    /// See `SamplingConfig`.
    pub top_p: Option<f32>,
    /// See `SamplingConfig`.
    pub top_k: Option<u32>,
    /// See `SamplingConfig`.
    pub min_p: Option<f32>,
    /// See `SamplingConfig`.
    pub repeat_penalty: Option<f32>,
    /// See `SamplingConfig`.
    pub repeat_last_n: Option<u32>,
}

/// The table `chat.engine`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Most tokens of prompt and answer together; 0 is what the model was trained on.
    pub context_tokens: u32,
    /// Tokens of all running conversations together; 0 is twice `context_tokens`.
    pub cache_tokens: u32,
    /// Conversations that generate at the same time.
    pub parallel: usize,
    /// Requests that may wait beside those that run.
    pub queue: usize,
    /// Longest wait for a turn.
    pub queue_timeout_ms: u64,
    /// Longest wait for a reader.
    pub reader_timeout_ms: u64,
    /// Threads that decode; 0 is one for each physical core.
    pub threads: usize,
    /// Most tokens of one step.
    pub batch_tokens: u32,
    /// Most prompt tokens of one step while others generate.
    pub prefill_tokens: u32,
    /// Layers on a GPU.
    pub gpu_layers: u32,
    /// Where a request says nothing.
    pub sampling: SamplingConfig,
}

/// The table `chat.engine.sampling`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// 0..2, 0 is greedy.
    pub temperature: f32,
    /// 0..1, 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 0..1, 0 drops none.
    pub min_p: f32,
    /// 1 does nothing.
    pub repeat_penalty: f32,
    /// How far `repeat_penalty` looks back.
    pub repeat_last_n: u32,
}

impl Config {
    /// Catalog names of the models that this process runs.
    #[must_use]
    pub fn model_names(&self) -> Vec<String> {
        self.local.iter().map(|local| local.name.clone()).collect()
    }

    /// The options of one local model.
    #[must_use]
    pub fn engine_of(&self, local: &LocalConfig) -> EngineConfig {
        let base = &self.engine;
        let LocalConfig {
            name: _,
            context_tokens,
            cache_tokens,
            parallel,
            queue,
            queue_timeout_ms,
            reader_timeout_ms,
            threads,
            batch_tokens,
            prefill_tokens,
            gpu_layers,
            sampling,
        } = local;
        let LocalSampling { temperature, top_p, top_k, min_p, repeat_penalty, repeat_last_n } =
            sampling;
        EngineConfig {
            context_tokens: context_tokens.unwrap_or(base.context_tokens),
            cache_tokens: cache_tokens.unwrap_or(base.cache_tokens),
            parallel: parallel.unwrap_or(base.parallel),
            queue: queue.unwrap_or(base.queue),
            queue_timeout_ms: queue_timeout_ms.unwrap_or(base.queue_timeout_ms),
            reader_timeout_ms: reader_timeout_ms.unwrap_or(base.reader_timeout_ms),
            threads: threads.unwrap_or(base.threads),
            batch_tokens: batch_tokens.unwrap_or(base.batch_tokens),
            prefill_tokens: prefill_tokens.unwrap_or(base.prefill_tokens),
            gpu_layers: gpu_layers.unwrap_or(base.gpu_layers),
            sampling: SamplingConfig {
                temperature: temperature.unwrap_or(base.sampling.temperature),
                top_p: top_p.unwrap_or(base.sampling.top_p),
                top_k: top_k.unwrap_or(base.sampling.top_k),
                min_p: min_p.unwrap_or(base.sampling.min_p),
                repeat_penalty: repeat_penalty.unwrap_or(base.sampling.repeat_penalty),
                repeat_last_n: repeat_last_n.unwrap_or(base.sampling.repeat_last_n),
            },
        }
    }
}

impl Configured for Config {
    fn service(&self) -> &ServiceConfig {
        &self.service
    }

    fn check(&self, problems: &mut Problems) {
        self.door.check(problems);
        self.engine.check("engine", problems);
        for (index, local) in self.local.iter().enumerate() {
            let option = format!("local.{index}");
            if self.local.iter().take(index).any(|other| other.name == local.name) {
                problems.add(&format!("{option}.name"), format!("`{}` is there twice", local.name));
            }
            self.engine_of(local).check(&option, problems);
        }
        for (index, remote) in self.remote.iter().enumerate() {
            let option = format!("remote.{index}");
            let others = self.remote.iter().take(index).map(|other| &other.name);
            if others
                .chain(self.local.iter().map(|local| &local.name))
                .any(|name| *name == remote.name)
            {
                problems
                    .add(&format!("{option}.name"), format!("`{}` is there twice", remote.name));
            }
            remote.check(&option, problems);
        }
    }

    fn check_files(&self, problems: &mut Problems) {
        self.door.check_files(problems);
    }
}

impl EngineConfig {
    fn check(&self, option: &str, problems: &mut Problems) {
        let mut need = |name: &str, fine: bool, expected: &str| {
            if !fine {
                problems.add(&format!("{option}.{name}"), format!("must be {expected}"));
            }
        };
        let context = self.context_tokens;
        need("context_tokens", context == 0 || context >= LEAST_CONTEXT, "0 or at least 64");
        need(
            "cache_tokens",
            self.cache_tokens == 0 || self.cache_tokens >= context.max(LEAST_CONTEXT),
            "0 or at least `context_tokens`",
        );
        need("parallel", (1..=MOST_PARALLEL).contains(&self.parallel), "from 1 to 256");
        let slots = u32::try_from(self.parallel).unwrap_or(u32::MAX);
        need(
            "batch_tokens",
            (slots.max(1)..=MOST_BATCH).contains(&self.batch_tokens),
            "from `parallel` to 8192",
        );
        need("prefill_tokens", self.prefill_tokens > 0, "at least 1");
        let SamplingConfig {
            temperature,
            top_p,
            top_k: _,
            min_p,
            repeat_penalty,
            repeat_last_n: _,
        } = &self.sampling;
        need("sampling.temperature", (0.0..=2.0).contains(temperature), "from 0 to 2");
        need("sampling.top_p", (0.0..=1.0).contains(top_p), "from 0 to 1");
        need("sampling.min_p", (0.0..=1.0).contains(min_p), "from 0 to 1");
        need(
            "sampling.repeat_penalty",
            *repeat_penalty > 0.0 && repeat_penalty.is_finite(),
            "above 0",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chassis::config::{Sources, load};

    fn with(env: &[(&str, &str)]) -> Result<Config, Problems> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        load("chat", crate::DEFAULTS, &Sources { file: None, env })
    }

    #[test]
    fn the_defaults_load_and_serve_the_small_model() {
        let config = with(&[]).unwrap();
        assert_eq!(config.model_names(), ["smollm2-135m-instruct"]);
        let engine = config.engine_of(&config.local[0]);
        assert_eq!(engine.parallel, 8);
        assert!(engine.sampling.temperature < config.engine.sampling.temperature);
    }

    #[test]
    fn an_entry_overrides_what_it_names_and_nothing_else() {
        let config =
            with(&[("CHAT__LOCAL", r#"[{ name = "m", threads = 3, sampling = { top_k = 7 } }]"#)])
                .unwrap();
        let engine = config.engine_of(&config.local[0]);
        assert_eq!((engine.threads, engine.sampling.top_k), (3, 7));
        assert_eq!(engine.batch_tokens, config.engine.batch_tokens);
    }

    #[test]
    fn a_remote_model_needs_little_and_its_documented_defaults_hold() {
        let entry = r#"[{ name = "m", base_urls = ["http://a/v1"] }]"#;
        let config = with(&[("CHAT__REMOTE", entry)]).unwrap();
        let remote = &config.remote[0];
        let example = crate::DEFAULTS
            .lines()
            .filter_map(|line| line.strip_prefix("#   "))
            .skip_while(|line| *line != "[[chat.remote]]");
        let documented: RemoteConfig = toml::from_str(
            &example
                .skip(1)
                .collect::<Vec<_>>()
                .join("\n")
                .replace("[chat.remote.connection]", "[connection]"),
        )
        .unwrap();
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
    fn a_remote_model_that_cannot_work_is_reported() {
        let entry = r#"[{ name = "smollm2-135m-instruct", base_urls = [], weights = [1], api_key = "k",
            api_key_file = "f", chat = false, connection = { retries = 11 } }]"#;
        let text = with(&[("CHAT__REMOTE", entry)]).unwrap_err().to_string();
        for option in ["name", "base_urls", "weights", "api_key", "chat", "connection.retries"] {
            assert!(text.contains(&format!("`chat.remote.0.{option}`")), "{option} in {text}");
        }
        assert!(!text.contains("\"k\""));
    }

    #[test]
    fn what_cannot_work_is_reported_with_its_name() {
        let problems = with(&[
            ("CHAT__ENGINE__PARALLEL", "0"),
            ("CHAT__ENGINE__SAMPLING__TEMPERATURE", "3.0"),
            ("CHAT__ENGINE__CACHE_TOKENS", "100"),
        ]);
        let text = problems.unwrap_err().to_string();
        for option in
            ["chat.engine.parallel", "chat.engine.sampling.temperature", "chat.engine.cache_tokens"]
        {
            assert!(text.contains(option), "{text}");
        }
    }
}
