//! Runs ONNX models: token ids or tensors in, rows of `f32` out.
//!
//! Separate because it is the only crate that knows ONNX Runtime (`ort`) and `tokenizers`, so that a new version of either
//! changes nothing else. A service holds an `Arc<dyn Encoder>` and a `Tokenizer`; how batches form and where they run is
//! decided here.

pub mod batch;
pub mod encoder;
pub mod error;
pub mod runtime;
pub mod session;
pub mod tokenizer;
pub mod waited;

pub use batch::{BatchOptions, Batcher};
pub use encoder::{Encoder, Item, RowShape};
pub use error::OnnxError;
pub use runtime::Runtime;
pub use session::{Device, Session, SessionOptions};
pub use tokenizer::{Fitted, Tokenizer, Window};
pub use waited::waited;
