//! Starting while a service behind the edge is away: the others are served, and nobody waits for ever.

use crate::ask::{API_KEY, B, says};
use chassis::config::{Sources, load};
use chassis::{Reloads, Tasks};
use chat::Backends;
use e2e::KEY;
use e2e::fakes::Parrot;
use reqwest::Client;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// No wait of these tests takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// An edge before a chat service that answers and an embedding service that never does.
struct Half {
    url: String,
    edge: Tasks,
    chat: Tasks,
    http: Client,
}

impl Half {
    async fn start(wait_ms: &str) -> Self {
        let chat = Tasks::new();
        let there = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Nobody listens there once this is dropped.
        let away = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoints =
            |listener: &TcpListener| format!("[\"http://{}\"]", listener.local_addr().unwrap());
        let options = [
            ("EDGE__AUTH__KEYS", format!("[\"{KEY}\"]")),
            ("EDGE__GUARD__POLICY", String::new()),
            ("EDGE__DISCOVERY__RETRY_MS", "5".to_owned()),
            ("EDGE__DISCOVERY__WAIT_MS", wait_ms.to_owned()),
            ("EDGE__CHAT__ENDPOINTS", endpoints(&there)),
            ("EDGE__EMBEDDING__ENDPOINTS", endpoints(&away)),
        ];
        let env = options.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        let config: edge::Config =
            load("edge", edge::DEFAULTS, &Sources { file: None, env }).unwrap();
        let defaults: chat::Config = load("chat", chat::DEFAULTS, &Sources::default()).unwrap();
        let backends = Backends::new(vec![Arc::new(Parrot::default())]).unwrap();
        let own = chat.clone();
        chat.spawn(async move { chat::serve_with(backends, &defaults, there, own).await });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let edge = Tasks::new();
        edge.spawn(edge::serve(config, Reloads::never(), listener, edge.clone()));
        drop(away);
        Self { url, edge, chat, http: Client::builder().no_proxy().build().unwrap() }
    }

    async fn ask(&self, route: &str, body: Value) -> u16 {
        let request = self.http.post(format!("{}{route}?{B}", self.url));
        let request =
            request.header(API_KEY.0, API_KEY.1).header("content-type", "application/json");
        request.body(body.to_string()).send().await.unwrap().status().as_u16()
    }

    async fn chat(&self) -> u16 {
        self.ask("/chat/completions", says("talk", "hello")).await
    }

    async fn stop(self) {
        self.edge.stop(PATIENCE).await;
        self.chat.stop(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_never_answers_does_not_keep_the_others_from_being_served() {
    let half = Half::start("1").await;
    tokio::time::timeout(PATIENCE, half.edge.until_ready()).await.unwrap();
    assert_eq!(half.chat().await, 200);
    assert_eq!(half.ask("/embeddings", json!({"input": ["one"]})).await, 503);
    half.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn until_then_an_edge_is_not_ready_although_it_could_answer() {
    let half = Half::start("600000").await;
    let answered = async { while half.chat().await != 200 {} };
    tokio::time::timeout(PATIENCE, answered).await.unwrap();
    assert!(!half.edge.ready(), "the other service may be about to come");
    half.stop().await;
}
