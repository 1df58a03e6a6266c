//! An embedder over a scripted server: what it sends, and what it makes of answers good and bad.

use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

struct Server(TcpListener);

impl Server {
    async fn start(more: &str) -> (Self, Remote) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let toml = format!(
            "name = 'served'\nmodel = 'org/model'\nbase_urls = ['{url}']\ndimensions = 2\n{more}\nconnection = {{ retries = 0 }}"
        );
        (Self(listener), Remote::build(&toml::from_str(&toml).unwrap()).unwrap())
    }

    /// Answers one request; its body comes back.
    async fn answer(&self, status: &str, body: &Value) -> Value {
        let (mut socket, _) = self.0.accept().await.unwrap();
        let mut bytes = Vec::new();
        let sent = loop {
            let mut piece = [0; 4096];
            let many = socket.read(&mut piece).await.unwrap();
            bytes.extend_from_slice(&piece[..many]);
            let text = String::from_utf8_lossy(&bytes);
            let body = text.split_once("\r\n\r\n").map(|(_, body)| serde_json::from_str(body));
            if let Some(Ok(body)) = body {
                break body;
            }
            assert!(many > 0, "the request is cut");
        };
        let body = body.to_string();
        let head = "content-type: application/json\r\nconnection: close";
        let answer =
            format!("HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        socket.write_all(answer.as_bytes()).await.unwrap();
        sent
    }
}

fn texts(texts: &[&str]) -> EmbedRequest {
    EmbedRequest {
        model: "served".into(),
        inputs: Inputs::Texts(texts.iter().map(|text| TextInput::Text((*text).into())).collect()),
        dimensions: None,
        purpose: Purpose::Text,
        extra: Map::new(),
    }
}

fn vectors(items: &[(usize, [f32; 2])]) -> Value {
    let data: Vec<_> =
        items.iter().map(|(index, v)| json!({"index": index, "embedding": v})).collect();
    json!({"data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}})
}

async fn fault_of(answer: &Value) -> Fault {
    let (server, remote) = Server::start("").await;
    let (embedded, _) =
        tokio::join!(remote.embed(texts(&["a", "b"])), server.answer("200 OK", answer));
    embedded.unwrap_err().into()
}

#[tokio::test]
async fn texts_are_sent_and_vectors_come_back_in_their_order() {
    let (server, remote) = Server::start("").await;
    let request = EmbedRequest {
        dimensions: Some(2),
        purpose: Purpose::Query,
        extra: json!({"truncate": "END", "model": "other"}).as_object().unwrap().clone(),
        ..texts(&["a", "b"])
    };
    let answer = vectors(&[(1, [3.0, 4.0]), (0, [1.0, 2.5])]);
    let (embedded, sent) = tokio::join!(remote.embed(request), server.answer("200 OK", &answer));
    let embedded = embedded.unwrap();
    assert_eq!(embedded.vectors, [[1.0, 2.5], [3.0, 4.0]]);
    assert_eq!(embedded.prompt_tokens, 3);
    assert_eq!(
        sent,
        json!({
            "model": "org/model", "input": ["a", "b"], "encoding_format": "float",
            "dimensions": 2, "input_type": "query", "truncate": "END"
        })
    );
}

#[tokio::test]
async fn a_request_larger_than_a_batch_is_several_calls() {
    let (server, remote) = Server::start("batch = 2").await;
    let answers = async {
        let first = server.answer("200 OK", &vectors(&[(0, [1.0, 0.0]), (1, [2.0, 0.0])])).await;
        let second = server.answer("200 OK", &vectors(&[(0, [3.0, 0.0])])).await;
        (first, second)
    };
    let (embedded, (first, second)) = tokio::join!(remote.embed(texts(&["a", "b", "c"])), answers);
    let embedded = embedded.unwrap();
    assert_eq!(embedded.vectors, [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]);
    assert_eq!(embedded.prompt_tokens, 6);
    assert_eq!((&first["input"], &second["input"]), (&json!(["a", "b"]), &json!(["c"])));
}

#[tokio::test]
async fn base64_is_read_as_well() {
    let (server, remote) = Server::start("").await;
    // 1.0 and -2.0, little-endian.
    let answer = json!({"data": [{"index": 0, "embedding": "AACAPwAAAMA="}]});
    let (embedded, _) = tokio::join!(remote.embed(texts(&["a"])), server.answer("200 OK", &answer));
    assert_eq!(embedded.unwrap().vectors, [[1.0, -2.0]]);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_an_error() {
    for answer in [
        json!({}),
        vectors(&[(0, [1.0, 2.0])]),
        vectors(&[(0, [1.0, 2.0]), (0, [1.0, 2.0])]),
        vectors(&[(0, [1.0, 2.0]), (7, [1.0, 2.0])]),
        json!({"data": [{"embedding": [1.0]}, {"embedding": [1.0]}]}),
        json!({"data": [{"embedding": "AAA="}, {"embedding": "%"}]}),
    ] {
        assert_eq!(fault_of(&answer).await.code, ErrorCode::UpstreamFailed, "{answer}");
    }
}

#[tokio::test]
async fn refusals_have_the_right_code() {
    for (status, code) in [
        ("400 Bad", ErrorCode::InvalidRequest),
        ("401 No", ErrorCode::UpstreamFailed),
        ("404 No", ErrorCode::UnknownModel),
        ("429 Slow", ErrorCode::RateLimited),
        ("500 Oh", ErrorCode::UpstreamFailed),
        ("503 Busy", ErrorCode::Unavailable),
    ] {
        let (server, remote) = Server::start("").await;
        let body = json!({"error": {"message": "no"}});
        let (embedded, _) = tokio::join!(remote.embed(texts(&["a"])), server.answer(status, &body));
        let fault = Fault::from(embedded.unwrap_err());
        assert_eq!(fault.code, code, "{status}");
        assert_eq!(fault.retry_after.is_some(), code.retryable(), "{status}");
    }
}

#[tokio::test]
async fn what_the_protocol_cannot_say_is_refused_without_a_call() {
    let (_server, remote) = Server::start("").await;
    let images = EmbedRequest { inputs: Inputs::Images(Vec::new()), ..texts(&[]) };
    assert!(matches!(remote.embed(images).await, Err(EmbeddingError::WrongKind { .. })));
    let mixed = vec![TextInput::Text("a".into()), TextInput::Tokens(vec![1])];
    let mixed = EmbedRequest { inputs: Inputs::Texts(mixed), ..texts(&[]) };
    assert!(matches!(remote.embed(mixed).await, Err(EmbeddingError::Invalid { .. })));
}
