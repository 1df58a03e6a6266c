//! What only shows on a real connection or at its edges: failures, deadlines, drain, clients that leave or dawdle.

use super::*;
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The edge on a port of its own.
async fn connect(edge: &Edge) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (live, tasks) = (edge.live.clone(), edge.tasks.clone());
    edge.tasks.spawn(async move { crate::server::serve(live, None, listener, &tasks).await });
    TcpStream::connect(address).await.unwrap()
}

fn raw(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let path = inference("/chat/completions");
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[tokio::test]
async fn a_failure_before_the_first_piece_is_an_ordinary_error() {
    let edge = edge(&[]).await;
    for body in [says("/fail"), streams("/fail")] {
        let answer = edge.post(&inference("/chat/completions"), &body).await;
        assert_eq!(answer.status, 500);
        assert_eq!(answer.json()["error"]["code"], "InternalServerError");
    }
}

#[tokio::test]
async fn a_failure_after_the_first_piece_is_an_event_and_a_broken_connection() {
    let edge = edge(&[]).await;
    let mut stream = connect(&edge).await;
    stream.write_all(&raw(&streams("/die"))).await.unwrap();
    let mut bytes = Vec::new();
    // The connection is closed, with or without a reset: what matters is how far the body came.
    let _ended = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(text.contains("data: {\"error\":{\"code\":\"InternalServerError\""), "{text}");
    assert!(!text.contains("[DONE]") && !text.ends_with("0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_generation() {
    let edge = edge(&[]).await;
    let mut stream = connect(&edge).await;
    stream.write_all(&raw(&streams("/hang"))).await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert!(!edge.seen.dropped.is_cancelled());
    drop(stream);
    let dropped = edge.seen.dropped.cancelled();
    tokio::time::timeout(Duration::from_secs(5), dropped).await.expect("the generation is dropped");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_generation_too() {
    let edge = edge(&[]).await;
    let mut stream = connect(&edge).await;
    stream.write_all(&raw(&says("/hang"))).await.unwrap();
    let arrived = async {
        while edge.seen.generated.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), arrived).await.expect("the generation begins");
    drop(stream);
    let dropped = edge.seen.dropped.cancelled();
    tokio::time::timeout(Duration::from_secs(5), dropped).await.expect("the generation is dropped");
}

#[tokio::test]
async fn what_takes_too_long_is_504() {
    let edge = edge(&[("EDGE__LIMITS__REQUEST_TIMEOUT_MS", "100")]).await;
    let answer = edge.post(&inference("/chat/completions"), &says("/hang")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["code"]),
        (504, &json!("GatewayTimeout"))
    );
    assert!(!answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_stream_that_takes_too_long_breaks_with_an_event() {
    let edge = edge(&[("EDGE__LIMITS__REQUEST_TIMEOUT_MS", "200")]).await;
    let mut stream = connect(&edge).await;
    stream.write_all(&raw(&streams("/hang"))).await.unwrap();
    let mut bytes = Vec::new();
    let _ended = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("GatewayTimeout") && !text.contains("[DONE]"), "{text}");
}

#[tokio::test]
async fn headers_that_do_not_come_close_the_connection() {
    let edge = edge(&[("EDGE__LIMITS__HEADER_TIMEOUT_MS", "100")]).await;
    for begun in ["", "P", "POST /chat/completions HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = connect(&edge).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let began = Instant::now();
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        let _ended = tokio::time::timeout(Duration::from_secs(5), end)
            .await
            .expect("the connection is closed");
        assert!(began.elapsed() >= Duration::from_millis(50), "{begun:?}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_400() {
    let edge = edge(&[("EDGE__LIMITS__BODY_TIMEOUT_MS", "50")]).await;
    let body = Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>());
    let answer = edge.send(post(&inference("/chat/completions"), body)).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("did not arrive"));
}

#[tokio::test]
async fn a_replica_that_stops_answers_503_and_finishes_what_runs() {
    let edge = edge(&[]).await;
    let response = edge
        .router
        .clone()
        .oneshot(post(&inference("/chat/completions"), streams("a b c").to_string()));
    let response = response.await.unwrap();
    assert_eq!(edge.tasks.in_flight(), 1, "a stream counts until its last byte");
    let stopper = edge.tasks.clone();
    let stop = edge.tasks.spawn(async move { stopper.stop(Duration::from_secs(5)).await });
    edge.tasks.draining().await;
    let refused = edge.post(&inference("/chat/completions"), &says("hi")).await;
    assert_eq!(refused.status, 503);
    assert_eq!(
        (&refused.headers["connection"], &refused.headers["retry-after"]),
        (&"close".parse().unwrap(), &"1".parse().unwrap())
    );
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(edge.tasks.in_flight(), 0);
    stop.abort();
}

#[tokio::test]
async fn a_plain_answer_says_its_length() {
    let edge = edge(&[]).await;
    let mut stream = connect(&edge).await;
    let request =
        format!("GET {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", inference("/info"));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("content-length: ") && !text.contains("transfer-encoding"), "{text}");
}
