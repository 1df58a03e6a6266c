//! A backend over a scripted server: what it sends, what it makes of answers, and what clients see of failures.

use super::*;
use crate::backend::{FinishReason, Message, Part, Prompt, Role, Usage};
use futures::StreamExt as _;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(20);

struct Server(TcpListener);

impl Server {
    async fn start() -> (Self, Remote) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        (Self(listener), Remote::build(&config(&url)).unwrap())
    }

    /// The body of the next request, which joins no trace, and the connection to answer it on.
    async fn request(&self) -> (TcpStream, Value) {
        let (mut socket, _) = self.0.accept().await.unwrap();
        let mut bytes = Vec::new();
        loop {
            let mut piece = [0; 4096];
            let many = socket.read(&mut piece).await.unwrap();
            bytes.extend_from_slice(&piece[..many]);
            let text = String::from_utf8_lossy(&bytes);
            let body = text.split_once("\r\n\r\n").map(|(_, body)| serde_json::from_str(body));
            if let Some(Ok(body)) = body {
                assert!(!text.contains("traceparent"), "nothing is traced here: {text}");
                return (socket, body);
            }
            assert!(many > 0, "the request is cut");
        }
    }

    async fn answer(&self, answer: &str) -> Value {
        let (mut socket, body) = self.request().await;
        socket.write_all(answer.as_bytes()).await.unwrap();
        body
    }
}

fn config(url: &str) -> RemoteConfig {
    let toml = format!(
        "name = 'served'\nmodel = 'org/model'\nbase_urls = ['{url}']\napi_key = 'sk-secret'\nconnection = {{ retries = 0 }}"
    );
    toml::from_str(&toml).unwrap()
}

fn hello() -> GenerateRequest {
    GenerateRequest {
        model: "served".into(),
        messages: vec![Message {
            role: Role::User,
            content: vec![Part::Text("Hi".into())],
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
        }],
        ..GenerateRequest::default()
    }
}

async fn collect(remote: &Remote) -> (Vec<Piece>, Option<Fault>) {
    let mut stream = match remote.generate(hello()).await {
        Ok(stream) => stream,
        Err(error) => return (Vec::new(), Some(error.into())),
    };
    let mut pieces = Vec::new();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => pieces.push(piece),
            Err(error) => {
                assert!(stream.next().await.is_none(), "nothing comes after an error");
                return (pieces, Some(error.into()));
            }
        }
    }
    (pieces, None)
}

fn refusal(status: &str, body: &Value) -> String {
    let (body, head) = (body.to_string(), "content-type: application/json\r\nconnection: close");
    format!(
        "HTTP/1.1 {status}\r\n{head}\r\nretry-after: 3\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn text(text: &str) -> Piece {
    Piece::Text { choice: 0, text: text.into(), logprobs: Vec::new() }
}

#[tokio::test]
async fn a_conversation_is_sent_and_answered() {
    let (server, remote) = Server::start().await;
    let events = [
        json!({"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": null}]}),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}),
    ];
    let events: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    let answer = format!("{STREAM}{events}data: [DONE]\n\n");
    let ((pieces, fault), sent) = tokio::join!(collect(&remote), server.answer(&answer));
    let usage = Usage { prompt_tokens: 2, completion_tokens: 1, ..Usage::default() };
    let finished = Piece::Finished { choice: 0, reason: FinishReason::Stop };
    assert_eq!(pieces, [text("Hello"), finished, Piece::Usage(usage)]);
    assert_eq!(fault, None);
    assert_eq!(sent["model"], "org/model");
    assert_eq!(sent["stream_options"], json!({"include_usage": true}));
}

#[tokio::test]
async fn prompts_are_sent_and_continued() {
    let (server, remote) = Server::start().await;
    let request =
        CompleteRequest { prompts: vec![Prompt::Text("a".into())], ..CompleteRequest::default() };
    let answer = format!(
        "{STREAM}data: {}\n\ndata: [DONE]\n\n",
        json!({"choices": [{"index": 0, "text": "b", "finish_reason": "length"}]})
    );
    let asked = async { remote.complete(request).await.unwrap().collect::<Vec<_>>().await };
    let (pieces, sent) = tokio::join!(asked, server.answer(&answer));
    let pieces: Vec<_> = pieces.into_iter().map(Result::unwrap).collect();
    assert_eq!(pieces[0], text("b"));
    assert_eq!(pieces[1], Piece::Finished { choice: 0, reason: FinishReason::Length });
    assert_eq!(sent["prompt"], "a");
}

#[tokio::test]
async fn refusals_have_the_right_code_and_the_words_that_help() {
    let body = json!({"error": {"message": "bad seed", "param": "seed"}});
    for (status, code, words) in [
        ("400 Bad", ErrorCode::InvalidRequest, "bad seed"),
        ("422 Bad", ErrorCode::InvalidRequest, "bad seed"),
        ("401 No", ErrorCode::UpstreamFailed, "`served`"),
        ("403 No", ErrorCode::UpstreamFailed, "`served`"),
        ("404 No", ErrorCode::UnknownModel, "`served`"),
        ("429 Slow", ErrorCode::RateLimited, "retry after 3 seconds"),
        ("500 Oh", ErrorCode::UpstreamFailed, "`served`"),
        ("503 Busy", ErrorCode::Unavailable, "`served`"),
        ("504 Late", ErrorCode::Timeout, "`served`"),
    ] {
        let (server, remote) = Server::start().await;
        let answer = refusal(status, &body);
        let ((_, fault), _) = tokio::join!(collect(&remote), server.answer(&answer));
        let fault = fault.unwrap();
        assert_eq!(fault.code, code, "{status}");
        assert!(fault.message.contains(words), "{status}: {}", fault.message);
        assert!(!fault.message.contains("secret"));
        assert_eq!(fault.retry_after.is_some(), code.retryable(), "{status}");
        let shows = fault.message.contains("bad seed");
        assert_eq!(shows, code == ErrorCode::InvalidRequest, "{status}: {}", fault.message);
    }
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_told_from_a_bad_one() {
    let (server, remote) = Server::start().await;
    let answer =
        refusal("400 Bad", &json!({"error": {"message": "maximum context length is 4096"}}));
    let ((_, fault), _) = tokio::join!(collect(&remote), server.answer(&answer));
    assert_eq!(fault.unwrap().code, ErrorCode::ContextLengthExceeded);
}

#[tokio::test]
async fn a_death_in_mid_answer_is_an_error_after_what_came() {
    let (server, remote) = Server::start().await;
    let event =
        json!({"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": null}]});
    let answer = format!("{STREAM}data: {event}\n\n");
    let ((pieces, fault), _) = tokio::join!(collect(&remote), server.answer(&answer));
    assert_eq!(pieces, [text("Hel")]);
    assert_eq!(fault.unwrap().code, ErrorCode::UpstreamFailed);
}

#[tokio::test]
async fn an_unreachable_server_is_unavailable_and_says_when_to_try_again() {
    let (server, remote) = Server::start().await;
    drop(server);
    let (_, fault) = collect(&remote).await;
    let fault = fault.unwrap();
    assert_eq!(fault.code, ErrorCode::Unavailable);
    assert!(fault.retry_after.is_some());
}

#[tokio::test]
async fn dropping_the_answer_closes_the_connection() {
    let (server, remote) = Server::start().await;
    let event =
        json!({"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": null}]});
    let serve = async {
        let (mut socket, _) = server.request().await;
        socket.write_all(format!("{STREAM}data: {event}\n\n").as_bytes()).await.unwrap();
        let closed = socket.read(&mut [0]).await;
        assert!(matches!(closed, Ok(0) | Err(_)));
    };
    let ask = async {
        let mut pieces = remote.generate(hello()).await.unwrap();
        assert_eq!(pieces.next().await.unwrap().unwrap(), text("Hel"));
    };
    let both = async { tokio::join!(serve, ask) };
    tokio::time::timeout(PATIENCE, both).await.expect("the connection is closed");
}

#[test]
fn a_missing_key_file_and_a_bad_url_name_the_model_and_the_option() {
    let build = |change: fn(&mut RemoteConfig)| {
        let mut config = config("http://127.0.0.1:1/v1");
        change(&mut config);
        format!("{:#}", Remote::build(&config).unwrap_err())
    };
    let text = build(|config| {
        config.api_key = None;
        config.api_key_file = Some("no/such/file".into());
    });
    assert!(text.contains("`served`") && text.contains("api_key_file"), "{text}");
    let text = build(|config| config.base_urls = vec!["here".into()]);
    assert!(text.contains("`served`") && text.contains("base URL"), "{text}");
}
