//! What edge and gRPC add to a chat that an instant fake backend answers, beside a bare HTTP server that says the same; and what
//! limits add that are counted in Redis.
//!
//! Run by `make bench`. One caller, one connection, one request after the other: the time of the path, not its throughput.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and a failed start ends it"
)]

use axum::Router;
use axum::routing::post;
use e2e::redis::Redis;
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

/// Limits that hold nobody back, so that every request is counted.
const PLENTY: &str = "[{name='plenty',limits={requests_per_minute=1000000,tokens_per_minute=1000000000,concurrent=1000}}]";

/// What is asked of whom.
struct Way {
    name: &'static str,
    url: String,
    body: &'static str,
}

#[tokio::main]
async fn main() {
    let stack = TestStack::start().await;
    let redis = Redis::start().await;
    let limited = TestStack::start_with(&[
        ("EDGE__STATE__REDIS_URL", redis.url().as_str()),
        ("EDGE__RATES__CLASSES", PLENTY),
        ("EDGE__RATES__DEFAULT_CLASS", "plenty"),
    ])
    .await;
    let chat = "/chat/completions?api-version=2024-05-01-preview";
    let answer = ask(&stack, &stack.url(chat), BODY).await;
    let ways = [
        Way { name: "bare HTTP server, same answer", url: bare(answer).await, body: BODY },
        Way { name: "chat through edge and gRPC", url: stack.url(chat), body: BODY },
        Way { name: "the same, screened by content safety", url: stack.url(chat), body: SCREENED },
        Way { name: "the same unscreened, counted in Redis", url: limited.url(chat), body: BODY },
    ];
    let times = medians(&stack, &ways).await;
    for (way, time) in ways.iter().zip(times) {
        println!("{:<40} {:>11.0} µs   p50", way.name, time.as_secs_f64() * 1e6);
    }
    for (name, added, most) in [
        ("added by edge and gRPC", times[1].saturating_sub(times[0]), 1000),
        ("added by limits in Redis", times[3].saturating_sub(times[1]), 500),
    ] {
        println!("{name:<40} {:>11.0} µs   < {most} µs", added.as_secs_f64() * 1e6);
    }
    limited.stop().await;
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

/// The median time of each way, asked in turns, so that whatever else the machine does slows all of them.
async fn medians<const N: usize>(stack: &TestStack, ways: &[Way; N]) -> [Duration; N] {
    let mut times: [Vec<Duration>; N] = std::array::from_fn(|_| Vec::with_capacity(REQUESTS));
    for n in 0..WARM_UP + REQUESTS {
        for (way, times) in ways.iter().zip(&mut times) {
            let began = Instant::now();
            ask(stack, &way.url, way.body).await;
            if n >= WARM_UP {
                times.push(began.elapsed());
            }
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}
