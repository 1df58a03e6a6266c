//! All four services in one process, on loopback, and what the command line does.
//!
//! Separate because it alone may know every service. It holds no behaviour of a request: it starts, wires and stops.

pub mod keys;
pub mod models;
mod settings;
mod stack;
pub mod up;

pub use settings::{Config, Settings};
pub use stack::{Models, Stack};

/// The commented defaults of the `standalone` table.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// Every option of every service with its default, as one file that can be edited and given to `--config`.
#[must_use]
pub fn defaults() -> String {
    [DEFAULTS, edge::DEFAULTS, chat::DEFAULTS, embedding::DEFAULTS, content_safety::DEFAULTS]
        .join("\n")
}
