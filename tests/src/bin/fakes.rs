//! A whole server over the deterministic fakes, for checks that are not written in Rust: prints its address, serves until it is
//! told to stop.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it says where it listens, and a failed start ends it"
)]

use e2e::TestStack;

#[tokio::main]
async fn main() {
    let stack = TestStack::start_with(&[
        ("EDGE__DEFAULTS__EMBEDDINGS", "vectors"),
        ("EDGE__DEFAULTS__IMAGE_EMBEDDINGS", "pictures"),
    ])
    .await;
    println!("{}", stack.url(""));
    tokio::signal::ctrl_c().await.unwrap();
    stack.stop().await;
}
