//! Everything that crosses a process boundary, and nothing else: the public JSON schema (`rest`), the gRPC schema
//! (`rpc`) and the errors both speak (`error`).
//!
//! Separate because every service and client depends on it, so it depends on none of them. Holds no behaviour beyond
//! parsing, validating and mapping codes.

pub mod error;
pub mod rest;
pub mod rpc;

pub use error::{Detail, ErrorCode, Fault};
