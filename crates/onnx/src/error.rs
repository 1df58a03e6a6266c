//! What can go wrong between a text or a picture and its row of numbers.
//!
//! One enum, so that a service can tell a caller's mistake (`UnknownToken`), a queue that is full (`Overloaded`) and a
//! broken installation (`Library`, `Model`) apart without knowing ONNX Runtime.

use std::path::PathBuf;
use std::time::Duration;

/// A failure of this crate. Messages are fit for an operator's log; only `UnknownToken` and `Overloaded` concern a caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    /// The runtime library is missing, damaged, for another system or too old.
    #[error(
        "cannot load the ONNX Runtime library `{path}`: {reason}; it must be a shared library of version 1.24 or newer for this system"
    )]
    Library {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// A process can hold one runtime library only.
    #[error(
        "cannot load the ONNX Runtime library `{path}`: this process already uses `{loaded}`; name the same file everywhere"
    )]
    OtherLibrary {
        /// The file asked for.
        path: PathBuf,
        /// The file in use.
        loaded: PathBuf,
    },
    /// The model file cannot be used.
    #[error("cannot load the model `{path}`: {reason}")]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer file cannot be used.
    #[error("cannot load the tokenizer `{path}`: {reason}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A text could not be tokenized.
    #[error("cannot tokenize the text: {0}")]
    Tokenize(String),
    /// A token id that the model's vocabulary does not have.
    #[error("token id {0} is not in the model's vocabulary")]
    UnknownToken(u32),
    /// An item that the model does not take: a bug of the caller's.
    #[error("the model does not take this item: {0}")]
    WrongItem(String),
    /// The model failed.
    #[error("the model failed: {0}")]
    Run(String),
    /// The queue is full.
    #[error("the model's queue is full")]
    Overloaded {
        /// When there will be room, by the speed of the last batches; 1 to 60 seconds.
        retry_after: Duration,
    },
    /// The worker has ended.
    #[error("the model's worker has stopped")]
    Stopped,
}
