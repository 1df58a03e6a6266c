//! Makes the clients out of the protos, in pure Rust (protox), so that no machine needs protoc.

/// Where the protos are: with a program elsewhere, the folder into which it copied them.
const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["chat", "embedding", "content_safety"].map(|s| format!("inference/{s}/v1/{s}.proto"));
    let descriptors = protox::compile(files, [PROTO])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed={PROTO}/inference");
    Ok(())
}
