//! A whole Koine on port 0 with deterministic models: what the tests and the benchmark drive.
#![expect(clippy::unwrap_used, missing_docs, reason = "test support: a failed start is a failed test")]

pub mod fakes;

use chassis::Tasks;
use chassis::config::Sources;
use fakes::{ByteVectors, Parrot};
use standalone::{Models, Settings, Stack};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// The key that the stack takes.
pub const KEY: &str = "golden-key";

/// A running stack.
#[derive(Debug)]
pub struct TestStack {
    pub address: SocketAddr,
    pub tasks: Tasks,
    pub parrot: Parrot,
    http: reqwest::Client,
}
