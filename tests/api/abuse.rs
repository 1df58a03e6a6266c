//! What no client of good will sends: over real sockets, each bounded and refused, and the server answers others all the while.

use crate::ask::{B, post, says};
use e2e::{KEY, TestStack};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// No wait of these tests takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a client opens an HTTP/2 connection with, and settings without any.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Header block of `POST http://x/`: three entries of the static table (RFC 7541, appendix A), and `:authority` in plain.
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 0x01, b'x'];

fn chat_path() -> String {
    format!("/chat/completions?{B}")
}

/// A request's head up to the line that says how long its body is.
fn head() -> String {
    let path = chat_path();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\napi-key: {KEY}\r\ncontent-type: application/json\r\n"
    )
}

/// Sends `bytes` and reads until the server closes, or `PATIENCE` is over.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close before it has read everything.
    let _cut = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection stays open: {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_default()
}

/// Somebody else is served.
async fn serves(stack: &TestStack) {
    let answer = post(stack, &chat_path(), &says("talk", "hi")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_bodies_that_trickle_end_in_time() {
    let stack = TestStack::start_with(&[
        ("EDGE__LIMITS__HEADER_TIMEOUT_MS", "200"),
        ("EDGE__LIMITS__BODY_TIMEOUT_MS", "200"),
    ])
    .await;
    // A byte every few milliseconds: each read makes progress, the whole never ends.
    let slow_head = head();
    let slow_body = format!("{}content-length: 50000\r\n\r\n", head());
    for (at_once, trickle) in [("", slow_head.as_bytes()), (&slow_body, &[b' '; 5000][..])] {
        let stream = TcpStream::connect(stack.address).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let send = async {
            write.write_all(at_once.as_bytes()).await?;
            let mut beat = tokio::time::interval(Duration::from_millis(5));
            for byte in trickle.iter().cycle() {
                beat.tick().await;
                write.write_all(&[*byte]).await?;
            }
            std::io::Result::Ok(())
        };
        let mut answer = Vec::new();
        let ended = async {
            tokio::select! {
                _closed = send => {}
                _closed = read.read_to_end(&mut answer) => {}
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
        serves(&stack).await;
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_wait_and_are_served_when_one_ends() {
    let stack = TestStack::start_with(&[("EDGE__LIMITS__CONNECTIONS", "1")]).await;
    let mut held = TcpStream::connect(stack.address).await.unwrap();
    let request = format!("GET /info?{B} HTTP/1.1\r\nhost: x\r\napi-key: {KEY}\r\n\r\n");
    held.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    held.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut waiting = TcpStream::connect(stack.address).await.unwrap();
    waiting.write_all(request.as_bytes()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), waiting.read_exact(&mut first));
    assert!(early.await.is_err(), "one connection more than the limit is served");
    drop(held);
    let late = tokio::time::timeout(PATIENCE, waiting.read_exact(&mut first)).await;
    late.unwrap().unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    drop(waiting);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn header_bombs_are_431_or_the_end_of_the_connection() {
    let stack = TestStack::start().await;
    let long = format!("{}x-long: {}\r\n\r\n", head(), "a".repeat(80_000));
    let many: String = (0..5000).map(|i| format!("x-{i}: a\r\n")).collect();
    let many = format!("{}{many}\r\n", head());
    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(80_000));
    for bomb in [long, many, path] {
        let answer = exchange(stack.address, bomb.as_bytes()).await;
        // A reset may take the answer along, as what was sent was not read.
        assert!(answer.is_empty() || matches!(status(&answer), 414 | 431), "{answer}");
    }
    serves(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_end_is_in_doubt_is_refused_and_nothing_after_it_is_read() {
    let stack = TestStack::start().await;
    let smuggled = format!("GET /smuggled?{B} HTTP/1.1\r\nhost: x\r\n\r\n");
    let chunks = "0\r\n\r\n";
    for (name, lengths, body) in [
        ("two lengths", "content-length: 5\r\ncontent-length: 6\r\n", "12345"),
        ("a list of lengths", "content-length: 5, 6\r\n", "12345"),
        ("a sign", "content-length: +5\r\n", "12345"),
        ("no number", "content-length: 0x5\r\n", "12345"),
        ("chunks that are not last", "transfer-encoding: chunked, identity\r\n", chunks),
        ("unknown encoding", "transfer-encoding: xchunked\r\n", chunks),
        ("a folded line", "transfer-encoding:\r\n chunked\r\n", chunks),
        ("a folded length", "x-a: b\r\n\tcontent-length: 5\r\n", "12345"),
        ("a blank before the colon", "transfer-encoding : chunked\r\n", chunks),
        ("a blank before the length's colon", "content-length : 5\r\n", "12345"),
        ("chunks of no size", "transfer-encoding: chunked\r\n", "zz\r\nab\r\n0\r\n\r\n"),
        (
            "a size without end",
            "transfer-encoding: chunked\r\n",
            "fffffffffffffffff\r\nab\r\n0\r\n\r\n",
        ),
    ] {
        let sent = format!("{}{lengths}\r\n{body}{smuggled}", head());
        let answer = exchange(stack.address, sent.as_bytes()).await;
        assert_eq!(status(&answer), 400, "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{name}: {answer}");
    }
    // Chunks win over a length; but whatever follows is not believed.
    for lengths in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        let sent = format!("{}{lengths}\r\n{chunks}{smuggled}", head());
        let answer = exchange(stack.address, sent.as_bytes()).await;
        assert_eq!(status(&answer), 400, "an empty body is no JSON: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    let old =
        head().replace("HTTP/1.1", "HTTP/1.0") + "transfer-encoding: chunked\r\n\r\n" + chunks;
    assert_eq!(status(&exchange(stack.address, old.as_bytes()).await), 400);
    serves(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_huge_or_deep_is_refused_without_harm() {
    let stack = TestStack::start().await;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(8000), close.repeat(8000));
    for body in [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        format!("{{\"messages\":{}}}", deep("[", "]")),
        "[".repeat(60_000),
        format!("{{\"messages\":[{{\"role\":\"user\",\"content\":1e{}}}]}}", "9".repeat(1000)),
    ] {
        let sent =
            format!("{}connection: close\r\ncontent-length: {}\r\n\r\n{body}", head(), body.len());
        assert_eq!(status(&exchange(stack.address, sent.as_bytes()).await), 400);
    }
    // Never said how long it is, and never ends: 65536 bytes are taken.
    let chunk = format!("1000\r\n{}\r\n", "a".repeat(4096)).repeat(40);
    let sent = format!("{}transfer-encoding: chunked\r\n\r\n{chunk}", head());
    let answer = exchange(stack.address, sent.as_bytes()).await;
    assert!(answer.is_empty() || status(&answer) == 413, "{answer}");
    serves(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_in_a_conversation_is_handed_on_to_hosts_of_the_list_alone() {
    let stack = TestStack::start_with(&[
        ("EDGE__API__REMOTE_HOSTS", "[\"images.example.com\"]"),
        (
            "EDGE__DEPLOYMENTS",
            "[{name='sees',service='chat',model='talk',policy='',images=true,audio=true}]",
        ),
    ])
    .await;
    let shows = |part: serde_json::Value| json!({"model": "sees", "messages": [{"role": "user", "content": [part]}]});
    let image = |url: &str| shows(json!({"type": "image_url", "image_url": {"url": url}}));
    for url in ["http://169.254.169.254/latest/meta-data", "https://localhost/x.png"] {
        let refused = post(&stack, &chat_path(), &image(url)).await;
        let body = refused.refused(400, "BadRequest").to_string();
        assert!(body.contains("messages.0.content.0.image_url.url"), "{body}");
    }
    let sound =
        shows(json!({"type": "audio_url", "audio_url": {"url": "https://localhost/x.wav"}}));
    assert_eq!(post(&stack, &chat_path(), &sound).await.status, 400);
    for url in ["https://images.example.com/x.png", "data:image/png;base64,aGk="] {
        let answer = post(&stack, &chat_path(), &image(url)).await;
        assert_eq!(answer.status, 200, "{url}: {}", answer.text());
    }
    stack.stop().await;
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// The next frame of the server: kind, stream, payload. None when it closes.
async fn next(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], id, payload))
}

/// Header block of a request that is let in and whose body is still to come; every text is shorter than 127 bytes.
fn waiting_for_its_body() -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // `:path` is the fourth name of the static table; the others are literals that nobody remembers.
    let mut block = [POST[0], POST[1], 4].to_vec();
    block.extend(text(&chat_path()));
    block.extend(&POST[3..]);
    for (name, value) in [("api-key", KEY), ("content-type", "application/json")] {
        block.push(0);
        block.extend([text(name), text(value)].concat());
    }
    block
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_over_the_limit_of_a_connection_are_refused() {
    let stack = TestStack::start().await;
    let mut stream = TcpStream::connect(stack.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let settings = loop {
        let (kind, _, payload) = next(&mut stream).await.unwrap();
        if kind == SETTINGS && !payload.is_empty() {
            break payload;
        }
    };
    let most = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).unwrap();
    let most = u32::from_be_bytes([most[2], most[3], most[4], most[5]]);
    assert_eq!(most, 256);
    // Each waits for its body, and one is too many.
    let block = waiting_for_its_body();
    for i in 0..=most {
        stream.write_all(&frame(HEADERS, END_HEADERS, 2 * i + 1, &block)).await.unwrap();
    }
    let refused = async {
        while let Some((kind, id, payload)) = next(&mut stream).await {
            // REFUSED_STREAM
            if kind == RST_STREAM && id == 2 * most + 1 && payload == [0, 0, 0, 7] {
                return true;
            }
            if kind == GOAWAY {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(PATIENCE, refused).await.unwrap());
    serves(&stack).await;
    drop(stream);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_at_once_and_headers_without_end_close_the_connection() {
    let stack = TestStack::start().await;
    let resets: Vec<u8> = (0..20_000_u32)
        .flat_map(|i| {
            let id = 2 * i + 1;
            let opened = frame(HEADERS, END_HEADERS, id, POST);
            [opened, frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
        })
        .collect();
    let endless: Vec<u8> = std::iter::once(frame(HEADERS, 0, 1, POST))
        .chain((0..2000).map(|_| frame(CONTINUATION, 0, 1, &[0; 8000])))
        .flatten()
        .collect();
    for flood in [resets, endless] {
        let stream = TcpStream::connect(stack.address).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let send = async {
            write.write_all(PREFACE).await?;
            write.write_all(&flood).await?;
            std::io::Result::Ok(write)
        };
        let hear =
            async { while next(&mut read).await.is_some_and(|(kind, ..)| kind != GOAWAY) {} };
        let both = async {
            // What is sent is kept open, so that only the server can end it.
            let (_sent, ()) = tokio::join!(send, hear);
        };
        tokio::time::timeout(PATIENCE, both).await.unwrap();
        serves(&stack).await;
    }
    let idle = async {
        while stack.tasks.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, idle).await.unwrap();
    stack.stop().await;
}
