//! Calls somebody else's model server that speaks the OpenAI protocol: vLLM, llama.cpp, TGI, Ollama, a cloud.
//!
//! Separate because chat and embedding both need it, and so it depends on nothing of ours: JSON goes in, JSON comes out.
//! Reading order: the endpoints behind one model (`pool`), one of them (`client`), its streamed answers (`events`, `sse`).
//! A key never shows in an error or a log.

pub mod error;
pub mod events;
pub mod options;
pub mod pool;
pub mod verdict;

mod breaker;
mod client;
mod sse;
#[cfg(test)]
mod tests;

pub use client::ApiKey;
pub use error::{Refusal, UpstreamError};
pub use events::Events;
pub use options::Options;
pub use pool::{EndpointConfig, Pool, PoolConfig, Route};
pub use verdict::Verdict;
