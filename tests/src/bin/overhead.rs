//! What edge and gRPC add to a chat that an instant fake backend answers, beside a bare HTTP server that says the same.
//!
//! Run by `make bench`. One caller, one connection, one request after the other: the time of the path, not its throughput.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and a failed start ends it"
)]

use axum::Router;
use axum::routing::post;
use e2e::{KEY, TestStack};
use std::time::{Duration, Instant};

/// Enough for a steady median, a few seconds in all.
const REQUESTS: usize = 3000;
/// Requests before the clock counts.
const WARM_UP: usize = 300;
/// What is asked; the fake repeats it.
const BODY: &str = r#"{"model":"free-talk","messages":[{"role":"user","content":"hello"}]}"#;
/// The same with the safety policy of the fakes.
const SCREENED: &str = r#"{"model":"talk","messages":[{"role":"user","content":"hello"}]}"#;

#[tokio::main]
async fn main() {
    let stack = TestStack::start().await;
    let url = stack.url("/chat/completions?api-version=2024-05-01-preview");
    let answer = ask(&stack, &url, BODY).await;
    let bare = bare(answer).await;
    let rows = [
        ("bare HTTP server, same answer", median(&stack, &bare, BODY).await),
        ("chat through edge and gRPC", median(&stack, &url, BODY).await),
        ("the same, screened by content safety", median(&stack, &url, SCREENED).await),
    ];
    for (name, time) in rows {
        println!("{name:<40} {:>11.0} µs   p50", time.as_secs_f64() * 1e6);
    }
    let added = rows[1].1.saturating_sub(rows[0].1);
    println!("{:<40} {:>11.0} µs   < 1000 µs", "added by edge and gRPC", added.as_secs_f64() * 1e6);
    stack.stop().await;
}

async fn bare(answer: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().route("/", post(move || std::future::ready(answer.clone())));
    chassis::Tasks::new()
        .spawn_untracked(async move { axum::serve(listener, router).await.unwrap() });
    url
}

async fn ask(stack: &TestStack, url: &str, body: &'static str) -> String {
    let request =
        stack.http().post(url).header("api-key", KEY).header("content-type", "application/json");
    let response = request.body(body).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    response.text().await.unwrap()
}

async fn median(stack: &TestStack, url: &str, body: &'static str) -> Duration {
    let mut times = Vec::with_capacity(REQUESTS);
    for n in 0..WARM_UP + REQUESTS {
        let began = Instant::now();
        ask(stack, url, body).await;
        if n >= WARM_UP {
            times.push(began.elapsed());
        }
    }
    times.sort_unstable();
    times[times.len() / 2]
}
