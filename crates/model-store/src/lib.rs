//! Where weights come from: catalog, fetch, verify, convert, a directory.
//!
//! Separate because every model service needs files and none should know registries, archives or checkpoint formats.
//! The invariant: a file under its final name has the bytes that the catalog names; everything else has another name.

pub mod catalog;
pub mod config;
mod convert;
pub mod error;
mod install;
pub mod local;
mod lock;
pub mod progress;
mod source;
pub mod store;
mod verify;

pub use catalog::{Catalog, Engine, Entry, FileSpec, Task};
pub use config::StoreConfig;
pub use error::StoreError;
pub use local::LocalModel;
pub use progress::{Event, Log, Progress, Silent, Terminal};
pub use store::Store;
pub use verify::{FileCheck, FileState};
