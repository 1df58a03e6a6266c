//! The options of `config.toml` as types.
//!
//! Separate so that an option is found in two places only: its documentation there, its type here. Nothing here touches files.

use crate::blocklist::lists::Lists;
use crate::blocklist::store;
use crate::blocklist::{ListConfig, is_name, name_rule};
use crate::picture::PictureLimits;
use crate::policy::{DEFAULT, ListUse, Mode, Policy};
use crate::screen::ScreenLimits;
use chassis::grpc::DoorConfig;
use chassis::{Configured, Problems, ServiceConfig};
use model_store::StoreConfig;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The table `content_safety`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Catalog name of the image model; empty for none.
    pub image_model: String,
    /// Findings that are remembered.
    pub cache_entries: usize,
    /// Words and patterns.
    pub blocklists: BlocklistsConfig,
    /// Texts and code that are somebody's.
    pub protected: ProtectedConfig,
    /// What is tolerated, by name.
    pub policies: BTreeMap<String, Policy>,
    /// A file with more policies, which is watched; empty for none.
    pub policy_file: String,
    /// How often it is looked at.
    pub policy_reload_ms: u64,
    /// The part that every service has.
    pub service: ServiceConfig,
    /// Who may enter.
    pub door: DoorConfig,
    /// What one request may ask for.
    pub limits: Limits,
    /// ONNX Runtime.
    pub runtime: RuntimeConfig,
    /// How much at once.
    pub batch: BatchConfig,
    /// Where models are kept and fetched from.
    pub models: StoreConfig,
}

/// The table `content_safety.blocklists`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlocklistsConfig {
    /// The operator's own lists, which callers cannot change.
    pub lists: Vec<ListConfig>,
    /// Where the lists that callers manage are kept; empty keeps them in memory alone.
    pub dir: String,
    /// How often the directory is looked at for changes of other replicas.
    pub refresh_ms: u64,
    /// Lists that callers may keep.
    pub managed_lists: usize,
    /// Items of all of them together.
    pub managed_items: usize,
    /// Those of the items that are regular expressions.
    pub managed_regexes: usize,
}

impl BlocklistsConfig {
    /// How much callers may keep.
    #[must_use]
    pub const fn limits(&self) -> store::Limits {
        store::Limits {
            lists: self.managed_lists,
            items: self.managed_items,
            regexes: self.managed_regexes,
        }
    }
}

/// The table `content_safety.protected`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtectedConfig {
    /// Directory with the folders `text` and `code`; empty for none.
    pub dir: String,
    /// Words in a row that make a passage of a text.
    pub text_words: usize,
    /// Tokens in a row that make a passage of code.
    pub code_tokens: usize,
    /// Most bytes of all files.
    pub bytes: u64,
}

/// The table `content_safety.limits`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Characters of all texts.
    pub characters: usize,
    /// Images beside a conversation.
    pub images: usize,
    /// Largest image file beside a conversation.
    pub image_bytes: usize,
    /// Most pixels of an image beside a conversation.
    pub image_pixels: u64,
    /// Largest image file to analyse.
    pub analyzed_image_bytes: usize,
    /// Width and height of an image to analyse.
    pub analyzed_image_sides: Sides,
}

/// Bounds of width and height, in pixels.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sides {
    /// At least this.
    pub least: u32,
    /// At most this.
    pub most: u32,
}

/// The table `content_safety.runtime`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Path of the library; empty for the catalog's.
    pub library: String,
    /// Copies of the text model; 0 is one per core that their threads leave.
    pub copies: usize,
    /// Threads of each; 0 is one, and half of the cores for images.
    pub threads: usize,
    /// Where models run.
    pub device: Device,
}

impl RuntimeConfig {
    /// Copies of the text model, at least one.
    #[must_use]
    pub fn copies(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let fitting = cores / self.threads.max(1);
        if self.copies == 0 { fitting.max(1) } else { self.copies }
    }
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

/// The table `content_safety.batch`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Rows × tokens of the longest in one batch.
    pub tokens: usize,
    /// Tokens that may wait.
    pub queue_tokens: usize,
    /// Images in one batch.
    pub images: usize,
    /// Images that may wait.
    pub queue_images: usize,
}

impl Limits {
    pub(crate) fn to_screen(&self) -> ScreenLimits {
        let sides = self.analyzed_image_sides;
        let analysed = PictureLimits {
            bytes: self.analyzed_image_bytes,
            least_side: sides.least,
            most_side: sides.most,
            pixels: u64::from(sides.most) * u64::from(sides.most),
        };
        let screened = PictureLimits {
            bytes: self.image_bytes,
            least_side: 1,
            most_side: u32::MAX,
            pixels: self.image_pixels,
        };
        ScreenLimits { characters: self.characters, images: self.images, screened, analysed }
    }
}

impl Configured for Config {
    fn service(&self) -> &ServiceConfig {
        &self.service
    }

    fn check(&self, problems: &mut Problems) {
        self.door.check(problems);
        self.check_policies(problems);
        if let Err(error) = Lists::configured(&self.blocklists.lists) {
            problems.add("blocklists.lists", error);
        }
        let limits = &self.limits;
        let positive = [
            ("limits.characters", limits.characters),
            ("limits.image_bytes", limits.image_bytes),
            ("limits.image_pixels", usize::try_from(limits.image_pixels).unwrap_or(usize::MAX)),
            ("limits.analyzed_image_bytes", limits.analyzed_image_bytes),
            ("batch.tokens", self.batch.tokens),
            ("batch.queue_tokens", self.batch.queue_tokens),
            ("batch.images", self.batch.images),
            ("batch.queue_images", self.batch.queue_images),
            ("policy_reload_ms", usize::try_from(self.policy_reload_ms).unwrap_or(1)),
            ("blocklists.refresh_ms", usize::try_from(self.blocklists.refresh_ms).unwrap_or(1)),
            ("protected.text_words", self.protected.text_words),
            ("protected.code_tokens", self.protected.code_tokens),
        ];
        for (option, value) in positive {
            if value == 0 {
                problems.add(option, "must be at least 1");
            }
        }
        let sides = limits.analyzed_image_sides;
        if sides.least == 0 || sides.least > sides.most {
            problems.add("limits.analyzed_image_sides", "`least` must be 1 to `most`");
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

impl Config {
    fn check_policies(&self, problems: &mut Problems) {
        if !self.policies.contains_key(DEFAULT) {
            problems.add("policies", format!("there must be one named `{DEFAULT}`"));
        }
        for (option, message) in self.wrong_policies(&self.policies) {
            problems.add(&option, message);
        }
    }

    /// What is wrong with `policies` under the rest of this configuration: option and message.
    pub(crate) fn wrong_policies(
        &self,
        policies: &BTreeMap<String, Policy>,
    ) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        for (name, policy) in policies {
            for used in policy.blocklists.iter().filter(|used| used.mode != Mode::Off) {
                if let Some(message) = self.wrong_list(used) {
                    wrong.push((format!("policies.{name}.blocklists"), message));
                }
            }
        }
        wrong
    }

    /// Whether a list is there is known for those of the configuration alone, so a policy says which kind it means.
    fn wrong_list(&self, used: &ListUse) -> Option<String> {
        let name = &used.name;
        match (self.blocklists.lists.iter().any(|list| list.name == *name), used.managed) {
            (true, false) => None,
            (false, true) => (!is_name(name)).then(name_rule),
            (true, true) => Some(format!(
                "`{name}` is in `blocklists.lists`, so it is not managed; leave out `managed`"
            )),
            (false, false) => Some(format!(
                "there is no blocklist `{name}` in `blocklists.lists`; say `managed = true` for one that callers keep under \
                 /contentsafety/text/blocklists"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chassis::config::{Sources, load};

    fn with(file: &str) -> Result<Config, Problems> {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        let sources = Sources { file: Some(path.path().to_owned()), env: Vec::new() };
        load("content_safety", crate::DEFAULTS, &sources)
    }

    #[test]
    fn the_defaults_are_complete_and_valid() {
        let config = with("").unwrap();
        let names: Vec<_> = config.policies.keys().collect();
        assert_eq!(names, ["annotate", "default", "strict"]);
        assert_eq!(config.models, StoreConfig::default());
    }

    #[test]
    fn a_policy_is_changed_option_by_option_and_others_stay() {
        let env =
            ("CONTENT_SAFETY__POLICIES__DEFAULT__JAILBREAK".to_owned(), "annotate".to_owned());
        let sources = Sources { file: None, env: vec![env] };
        let config: Config = load("content_safety", crate::DEFAULTS, &sources).unwrap();
        assert_eq!(config.policies["default"].jailbreak, Mode::Annotate);
        assert_eq!(config.policies["strict"].jailbreak, Mode::Block);
    }

    #[test]
    fn a_policy_that_forgets_something_is_refused() {
        let problems = with("[content_safety.policies.mine]\njailbreak = \"off\"").unwrap_err();
        assert!(problems.to_string().contains("content_safety.policies.mine"), "{problems}");
    }

    #[test]
    fn a_policy_must_name_blocklists_that_exist() {
        let file =
            "[content_safety.policies.default]\nblocklists = [{ name = \"a\", mode = \"block\" }]";
        let problems = with(file).unwrap_err().to_string();
        assert!(problems.contains("policies.default.blocklists") && problems.contains("`a`"));
        let list =
            "\n[[content_safety.blocklists.lists]]\nname = \"a\"\nitems = [{ text = \"x\" }]";
        assert_eq!(with(&format!("{file}{list}")).unwrap().blocklists.lists.len(), 1);
        let managed = file.replace("\"block\"", "\"block\", managed = true");
        assert!(with(&managed).is_ok());
        let both = with(&format!("{managed}{list}")).unwrap_err().to_string();
        assert!(both.contains("leave out `managed`"), "{both}");
    }

    #[test]
    fn a_blocklist_that_does_not_compile_is_named_at_start() {
        let file = "[[content_safety.blocklists.lists]]\nname = \"a\"\nitems = [{ regex = \"(\" }]";
        let problems = with(file).unwrap_err().to_string();
        assert!(problems.contains("list `a`") && problems.contains("item `1`"), "{problems}");
    }
}
