//! The collector of the tests as a program: says where it listens, takes spans until its input ends, and writes them as JSON.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool of tests and of `make trace`"
)]

use e2e::collector::Collector;
use std::io::Read as _;

#[tokio::main]
async fn main() {
    let collector = Collector::start().await;
    println!("{}", collector.endpoint);
    let wait = || std::io::stdin().read_to_end(&mut Vec::new());
    chassis::Tasks::new().spawn_blocking(wait).await.unwrap().unwrap();
    println!("{}", serde_json::to_string(&collector.spans()).unwrap());
}
