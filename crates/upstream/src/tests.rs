//! The pool against a scripted server: answers whole, cut, wrong, late or broken off.

use super::*;
use crate::error::WaitingFor;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(20);
const SHORT_MS: u64 = 50;
const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A server that does what its test says.
struct Server {
    listener: TcpListener,
}

impl Server {
    async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn endpoint(&self) -> EndpointConfig {
        let base_url = format!("http://{}/v1", self.listener.local_addr().unwrap());
        EndpointConfig { base_url, weight: 1 }
    }

    /// The next request, and the connection to answer it on.
    async fn request(&self) -> (Peer, String) {
        let (socket, _) = self.listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut peer = Peer { socket };
        let request = peer.read_request().await;
        (peer, request)
    }

    /// Answers one request and closes.
    async fn answer(&self, answer: &str) -> String {
        let (mut peer, request) = self.request().await;
        peer.send(answer).await;
        request
    }
}

struct Peer {
    socket: TcpStream,
}

impl Peer {
    async fn read_request(&mut self) -> String {
        let mut bytes = Vec::new();
        loop {
            let mut piece = [0; 4096];
            let many = self.socket.read(&mut piece).await.unwrap();
            assert!(many > 0, "the request is cut");
            bytes.extend_from_slice(&piece[..many]);
            let text = String::from_utf8(bytes.clone()).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
    }

    async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
        self.socket.flush().await.unwrap();
    }

    /// One event as one HTTP chunk.
    async fn event(&mut self, data: &str) {
        self.send(&chunk(&format!("data: {data}\n\n"))).await;
    }

    /// Returns when the client has closed the connection.
    async fn gone(&mut self) {
        let mut byte = [0];
        match self.socket.read(&mut byte).await {
            Ok(0) | Err(_) => {}
            Ok(_) => panic!("the client sent more"),
        }
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn json_answer(status: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn config(endpoints: Vec<EndpointConfig>) -> PoolConfig {
    PoolConfig {
        endpoints,
        api_key: Some(ApiKey::new("sk-secret").unwrap()),
        options: Options { retries: 0, ..Options::default() },
        headers: HeaderMap::new,
    }
}

async fn with_server() -> (Server, Pool) {
    let server = Server::start().await;
    let pool = Pool::build(&config(vec![server.endpoint()])).unwrap();
    (server, pool)
}

async fn chat(pool: &Pool) -> Result<Events, UpstreamError> {
    pool.stream(Route::ChatCompletions, &json!({"stream": true})).await
}

/// All events and the error that ended them.
async fn collect(pool: &Pool) -> (Vec<Value>, Option<UpstreamError>) {
    let mut collected = Vec::new();
    let mut events = match chat(pool).await {
        Ok(events) => events,
        Err(error) => return (collected, Some(error)),
    };
    loop {
        match events.next().await {
            Ok(Some(event)) => collected.push(event),
            Ok(None) => return (collected, None),
            Err(error) => return (collected, Some(error)),
        }
    }
}

#[tokio::test]
async fn a_plain_answer_is_read_and_the_request_is_right() {
    let (server, pool) = with_server().await;
    let answer = json_answer("200 OK", &json!({"data": [1]}));
    let body = json!({"input": "a"});
    let (read, request) = tokio::join!(pool.embeddings(&body), server.answer(&answer));
    assert_eq!(read.unwrap(), json!({"data": [1]}));
    assert!(request.starts_with("POST /v1/embeddings HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Bearer sk-secret\r\n"));
    assert!(request.ends_with("\r\n\r\n{\"input\":\"a\"}"));
}

#[tokio::test]
async fn models_are_listed() {
    let (server, pool) = with_server().await;
    let answer = json_answer("200 OK", &json!({"data": [{"id": "m"}]}));
    let (read, request) = tokio::join!(pool.models(), server.answer(&answer));
    assert_eq!(read.unwrap()["data"][0]["id"], "m");
    assert!(request.starts_with("GET /v1/models HTTP/1.1\r\n"), "{request}");
}

#[tokio::test]
async fn a_stream_cut_at_every_byte_is_whole() {
    let (server, pool) = with_server().await;
    let answer = async {
        let (mut peer, request) = server.request().await;
        peer.send(STREAM).await;
        for byte in
            ": hi\r\n\r\ndata: {\"a\":\"\\u00e4\"}\n\ndata: {\"b\":2}\n\ndata: [DONE]\n\n".chars()
        {
            peer.send(&chunk(&byte.to_string())).await;
        }
        peer.send("0\r\n\r\n").await;
        request
    };
    let ((events, error), request) = tokio::join!(collect(&pool), answer);
    assert_eq!(events, [json!({"a": "ä"}), json!({"b": 2})]);
    assert_eq!(error, None);
    assert!(request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{request}");
}

#[tokio::test]
async fn a_connection_serves_several_streams() {
    let (server, pool) = with_server().await;
    let answer = async {
        let (mut peer, _) = server.request().await;
        for round in 0..3 {
            if round > 0 {
                peer.read_request().await;
            }
            let events = chunk("data: {}\n\ndata: [DONE]\n\n");
            peer.send(&format!("{STREAM}{events}0\r\n\r\n")).await;
        }
    };
    let rounds = async {
        for _ in 0..3 {
            assert_eq!(collect(&pool).await, (vec![json!({})], None));
        }
    };
    tokio::join!(answer, rounds);
}

#[tokio::test]
async fn one_document_in_place_of_a_stream_is_one_event() {
    let (server, pool) = with_server().await;
    let answer = json_answer("200 OK", &json!({"choices": []}));
    let (read, _) = tokio::join!(collect(&pool), server.answer(&answer));
    assert_eq!(read, (vec![json!({"choices": []})], None));
}

#[tokio::test]
async fn a_refusal_keeps_status_words_and_field_but_never_the_key() {
    for (status, code) in
        [("400 Bad", 400), ("401 No", 401), ("404 No", 404), ("429 Slow", 429), ("500 Oh", 500)]
    {
        let (server, pool) = with_server().await;
        let answer = json_answer(
            status,
            &json!({"error": {"message": "words", "param": "seed", "code": "c"}}),
        );
        let answer = answer.replace("connection", "retry-after: 2\r\nconnection");
        let ((_, error), _) = tokio::join!(collect(&pool), server.answer(&answer));
        let Some(UpstreamError::Refused { refusal, .. }) = &error else { panic!("{error:?}") };
        assert_eq!(refusal.status, code);
        assert_eq!(refusal.message, "words");
        assert_eq!(refusal.param.as_deref(), Some("seed"));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(2)));
        assert!(!format!("{error:?}").contains("secret"));
        assert!(!error.unwrap().for_log().contains("words"));
    }
}

#[tokio::test]
async fn a_redirect_is_refused_because_it_would_carry_the_key_away() {
    let (server, pool) = with_server().await;
    let answer =
        "HTTP/1.1 307 Over There\r\nlocation: http://127.0.0.1:1/v1\r\ncontent-length: 0\r\n\r\n";
    let ((_, error), _) = tokio::join!(collect(&pool), server.answer(answer));
    assert!(matches!(error, Some(UpstreamError::Refused { refusal, .. }) if refusal.status == 307));
}

#[tokio::test]
async fn a_death_in_mid_stream_is_an_error_after_what_came() {
    let (server, pool) = with_server().await;
    let answer = async {
        let (mut peer, _) = server.request().await;
        peer.send(STREAM).await;
        peer.event("{}").await;
    };
    let ((events, error), ()) = tokio::join!(collect(&pool), answer);
    assert_eq!(events, [json!({})]);
    assert!(matches!(error, Some(UpstreamError::Broken { .. })), "{error:?}");
}

#[tokio::test]
async fn an_orderly_end_without_done_is_an_end() {
    let (server, pool) = with_server().await;
    let answer = format!("{STREAM}{}0\r\n\r\n", chunk("data: {}"));
    let (read, _) = tokio::join!(collect(&pool), server.answer(&answer));
    assert_eq!(read, (vec![json!({})], None));
}

#[tokio::test]
async fn a_stream_without_events_is_broken() {
    let (server, pool) = with_server().await;
    let answer = format!("{STREAM}0\r\n\r\n");
    let ((_, error), _) = tokio::join!(collect(&pool), server.answer(&answer));
    assert!(matches!(error, Some(UpstreamError::Broken { .. })), "{error:?}");
}

#[tokio::test]
async fn an_event_that_is_no_json_is_broken() {
    let (server, pool) = with_server().await;
    let answer = format!("{STREAM}{}0\r\n\r\n", chunk("data: {}\n\ndata: {\"a\n\n"));
    let ((events, error), _) = tokio::join!(collect(&pool), server.answer(&answer));
    assert_eq!(events.len(), 1);
    assert!(matches!(error, Some(UpstreamError::Broken { .. })), "{error:?}");
}

#[tokio::test]
async fn an_error_in_the_stream_is_a_refusal() {
    let (server, pool) = with_server().await;
    let error = "data: {\"error\":{\"message\":\"out of memory\",\"code\":503}}\n\n";
    let answer = format!("{STREAM}{}0\r\n\r\n", chunk(&format!("data: {{}}\n\n{error}")));
    let ((events, error), _) = tokio::join!(collect(&pool), server.answer(&answer));
    assert_eq!(events.len(), 1);
    let Some(UpstreamError::Refused { refusal, .. }) = error else { panic!("{error:?}") };
    assert_eq!((refusal.status, refusal.message.as_str()), (503, "out of memory"));
}

#[tokio::test]
async fn a_slow_first_byte_is_a_timeout() {
    let server = Server::start().await;
    let mut config = config(vec![server.endpoint()]);
    config.options.first_byte_timeout_ms = SHORT_MS;
    config.options.retries = 3;
    let pool = Pool::build(&config).unwrap();
    // One that accepts and never answers, and one that sends its head and no more.
    for head in ["", STREAM] {
        let answer = async {
            let (mut peer, _) = server.request().await;
            peer.send(head).await;
            peer.gone().await;
        };
        let ((_, error), ()) = tokio::join!(collect(&pool), answer);
        let Some(UpstreamError::Timeout { waiting_for, after, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!((waiting_for, after), (WaitingFor::FirstByte, Duration::from_millis(SHORT_MS)));
    }
}

#[tokio::test]
async fn silence_in_mid_stream_is_a_timeout() {
    let server = Server::start().await;
    let mut config = config(vec![server.endpoint()]);
    config.options.between_bytes_timeout_ms = SHORT_MS;
    let pool = Pool::build(&config).unwrap();
    let answer = async {
        let (mut peer, _) = server.request().await;
        peer.send(STREAM).await;
        peer.event("{}").await;
        peer.gone().await;
    };
    let ((events, error), ()) = tokio::join!(collect(&pool), answer);
    assert_eq!(events.len(), 1);
    let Some(UpstreamError::Timeout { waiting_for, .. }) = error else { panic!("{error:?}") };
    assert_eq!(waiting_for, WaitingFor::NextByte);
}

#[tokio::test]
async fn dropping_the_events_closes_the_connection() {
    let (server, pool) = with_server().await;
    let answer = async {
        let (mut peer, _) = server.request().await;
        peer.send(STREAM).await;
        peer.event("{}").await;
        peer.gone().await;
    };
    let read_one = async { drop(chat(&pool).await.unwrap()) };
    let both = async { tokio::join!(read_one, answer) };
    tokio::time::timeout(LONG, both).await.expect("the connection is closed");
}

#[tokio::test]
async fn dropping_the_call_before_an_answer_closes_the_connection() {
    let (server, pool) = with_server().await;
    let mut call = Box::pin(chat(&pool));
    let (mut peer, _) = tokio::select! {
        _ = &mut call => panic!("there was no answer"),
        request = server.request() => request,
    };
    drop(call);
    tokio::time::timeout(LONG, peer.gone()).await.expect("the connection is closed");
}

#[tokio::test]
async fn another_endpoint_is_asked_when_one_fails_before_the_first_byte() {
    let refused = Server::start().await.endpoint();
    let (busy, good) = (Server::start().await, Server::start().await);
    let mut config = config(vec![refused, busy.endpoint(), good.endpoint()]);
    config.options.retries = 2;
    let pool = Pool::build(&config).unwrap();
    let busy = async { busy.answer(&json_answer("503 Busy", &json!({}))).await };
    let answer = json_answer("200 OK", &json!({"data": []}));
    let body = json!({});
    let (read, _, _) = tokio::join!(pool.embeddings(&body), busy, good.answer(&answer));
    assert_eq!(read.unwrap(), json!({"data": []}));
}

#[tokio::test]
async fn every_attempt_carries_the_headers_of_its_moment() {
    static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
    fn headers() -> HeaderMap {
        let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        HeaderMap::from_iter([("traceparent".parse().unwrap(), attempt.into())])
    }
    let (busy, good) = (Server::start().await, Server::start().await);
    let mut config = config(vec![busy.endpoint(), good.endpoint()]);
    config.options.retries = 1;
    config.headers = headers;
    let pool = Pool::build(&config).unwrap();
    let busy = async { busy.answer(&json_answer("503 Busy", &json!({}))).await };
    let answer = json_answer("200 OK", &json!({"data": []}));
    let body = json!({});
    let (read, first, second) = tokio::join!(pool.embeddings(&body), busy, good.answer(&answer));
    read.unwrap();
    assert!(first.contains("\r\ntraceparent: 0\r\n"), "{first}");
    assert!(second.contains("\r\ntraceparent: 1\r\n"), "{second}");
}

#[tokio::test]
async fn a_bad_request_is_not_repeated() {
    let (server, other) = (Server::start().await, Server::start().await);
    let mut config = config(vec![server.endpoint(), other.endpoint()]);
    config.options.retries = 5;
    let pool = Pool::build(&config).unwrap();
    let answer = json_answer("400 Bad", &json!({"error": "no"}));
    let ((_, error), _) = tokio::join!(collect(&pool), server.answer(&answer));
    assert!(matches!(error, Some(UpstreamError::Refused { refusal, .. }) if refusal.status == 400));
}

#[tokio::test]
async fn a_refused_connection_opens_the_breaker() {
    let mut config = config(vec![Server::start().await.endpoint()]);
    config.options.breaker_failures = 1;
    let pool = Pool::build(&config).unwrap();
    let (_, error) = collect(&pool).await;
    assert!(matches!(error, Some(UpstreamError::Connect { .. })), "{error:?}");
    let (_, error) = collect(&pool).await;
    assert!(matches!(error, Some(UpstreamError::Unhealthy { .. })), "{error:?}");
}

#[tokio::test]
async fn an_endpoint_that_is_back_is_used_before_its_pause_is_over() {
    let server = Server::start().await;
    let mut config = config(vec![server.endpoint()]);
    config.options.retries = 0;
    config.options.breaker_failures = 1;
    config.options.breaker_pause_ms = 3_600_000;
    config.options.health_interval_ms = 20;
    let pool = Pool::build(&config).unwrap();
    let (_, (_, error)) = tokio::join!(server.answer(""), collect(&pool));
    assert!(matches!(error, Some(UpstreamError::Broken { .. })), "{error:?}");
    let well = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    // When it is asked again, what it said first has been heard.
    let asked = async { [server.answer(well).await, server.answer(well).await] };
    let asked = tokio::select! {
        () = pool.watch() => panic!("watches for ever"),
        asked = asked => asked,
    };
    assert!(asked.iter().all(|request| request.starts_with("GET /v1/models ")), "{asked:?}");
    let refusal = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let (_, (_, error)) = tokio::join!(server.answer(refusal), collect(&pool));
    assert!(matches!(error, Some(UpstreamError::Refused { .. })), "{error:?}");
}
