//! Leaving: a client that goes away frees its slot, and a stop loses nothing that was accepted.

use e2e::{KEY, TestStack};
use futures::StreamExt as _;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::time::Duration;

const CHAT: &str = "/chat/completions?api-version=2024-05-01-preview";
/// No wait of these tests takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(10);

fn ask(stack: &TestStack, text: &str, stream: bool) -> reqwest::RequestBuilder {
    let body = json!({"model": "free-talk", "messages": [{"role": "user", "content": text}], "stream": stream});
    let request = stack.http().post(stack.url(CHAT)).header("api-key", KEY);
    request.header("content-type", "application/json").body(body.to_string())
}

/// Waits until `done` holds; a bound on broken code, not a pause.
async fn until(done: impl Fn() -> bool) {
    let check = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, check).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_mid_stream_frees_its_slot() {
    let stack = TestStack::start().await;
    let response = ask(&stack, "/hang", true).send().await.unwrap();
    let mut body = response.bytes_stream();
    body.next().await.unwrap().unwrap();
    assert_eq!(stack.parrot.running(), 1);
    drop(body);
    until(|| stack.parrot.running() == 0).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_answer_frees_its_slot() {
    let stack = TestStack::start().await;
    let asked =
        tokio::time::timeout(Duration::from_millis(500), ask(&stack, "/hang", false).send()).await;
    assert!(asked.is_err(), "a whole answer of a stream that hangs cannot come");
    until(|| stack.parrot.running() == 0).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_what_runs_and_refuses_the_rest_with_503() {
    let stack = TestStack::start().await;
    let response = ask(&stack, "/hang", true).send().await.unwrap();
    let mut body = response.bytes_stream();
    body.next().await.unwrap().unwrap();
    let stopping = chassis::Tasks::new().spawn({
        let tasks = stack.tasks.clone();
        async move { tasks.stop(PATIENCE).await }
    });
    until(|| !stack.tasks.ready()).await;
    let refused = ask(&stack, "hello", false).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let error: serde_json::Value = serde_json::from_slice(&refused.bytes().await.unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "ServiceUnavailable");
    assert_eq!(stack.parrot.running(), 1, "the accepted stream still runs");
    drop(body);
    stopping.await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_answers_still_and_lets_connections_go() {
    let stack = TestStack::start().await;
    let before = ask(&stack, "hello", false).send().await.unwrap();
    assert!(before.status().is_success() && !before.headers().contains_key("connection"));
    stack.tasks.leave(Duration::ZERO).await;
    assert!(!stack.tasks.ready(), "load balancers are told");
    let after = ask(&stack, "hello", false).send().await.unwrap();
    assert!(after.status().is_success(), "new work is taken");
    assert_eq!(after.headers()["connection"], "close");
    stack.stop().await;
}

/// Load balancers keep HTTP/2 connections for hours; what runs on them ends, and what comes next takes another.
#[tokio::test(flavor = "multi_thread")]
async fn an_http2_connection_is_told_that_this_edge_leaves_and_its_streams_go_on() {
    let stack = TestStack::start().await;
    let address = reqwest::Url::parse(&stack.url("/")).unwrap();
    let address = address.socket_addrs(|| None).unwrap();
    let io = TokioIo::new(tokio::net::TcpStream::connect(&address[..]).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = stack.tasks.spawn(connection);
    let running = client.send_request(request(&stack, "/hang", true)).await.unwrap();
    stack.tasks.leave(Duration::ZERO).await;
    // Until the word has reached the client, what it sends is answered.
    let told = async {
        while let Ok(answer) = client.send_request(request(&stack, "hello", false)).await {
            assert!(answer.status().is_success());
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(stack.parrot.running(), 1, "the accepted stream still runs");
    drop(running);
    tokio::time::timeout(PATIENCE, connection).await.unwrap().unwrap().unwrap();
    assert!(ask(&stack, "hello", false).send().await.unwrap().status().is_success());
    stack.stop().await;
}

fn request(stack: &TestStack, text: &str, stream: bool) -> hyper::Request<reqwest::Body> {
    ask(stack, text, stream).build().unwrap().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_past_the_deadline_is_aborted_without_done() {
    let stack = TestStack::start().await;
    let mut response = ask(&stack, "/hang", true).send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    stack.tasks.stop(Duration::from_millis(50)).await;
    let mut text = Vec::new();
    let broken = loop {
        match tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap() {
            Ok(Some(chunk)) => text.extend_from_slice(&chunk),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "a stream that was cut must not look complete");
    assert!(!String::from_utf8(text).unwrap().contains("[DONE]"));
}
