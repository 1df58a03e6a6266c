//! Compiles `/proto` in pure Rust (protox), so that no machine needs protoc. The descriptor set is kept for gRPC
//! reflection.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]

use prost::Message as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let files =
        ["chat", "embedding", "content_safety"].map(|s| format!("inference/{s}/v1/{s}.proto"));
    let descriptors = protox::compile(files, [&proto])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Ordered maps: the same message is always the same bytes, by which answers are found again.
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed={}", proto.display());
    Ok(())
}
