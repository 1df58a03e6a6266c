//! Answers that are given again, shared, broken off and given up.

use super::*;
use api_types::ErrorCode;
use bytes::Bytes;
use chassis::config::{Sources, load};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

fn cache(options: &[(&str, &str)]) -> Cache {
    let env = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let config: Config = load("edge", crate::DEFAULTS, &Sources { file: None, env }).unwrap();
    Cache::build(&config, &Tasks::new()).unwrap()
}

fn key(text: &str) -> Key {
    Key::new(Kind::Chat, "", "", text.as_bytes())
}

fn frames(words: &[&'static str]) -> FrameStream {
    let words: Vec<_> = words.iter().map(|w| Ok(Bytes::from_static(w.as_bytes()))).collect();
    stream::iter(words).boxed()
}

async fn read(stream: FrameStream) -> Result<Vec<String>, ErrorCode> {
    let items: Vec<_> = stream.collect().await;
    let text = |item: Result<Bytes, Fault>| match item {
        Ok(frame) => Ok(String::from_utf8(frame.to_vec()).unwrap()),
        Err(fault) => Err(fault.code),
    };
    items.into_iter().map(text).collect()
}

#[tokio::test]
async fn a_whole_answer_is_given_again_and_computed_once() {
    let cache = cache(&[]);
    let computed = Arc::new(AtomicUsize::new(0));
    for expected in [Source::Miss, Source::Hit, Source::Hit] {
        let count = Arc::clone(&computed);
        let compute = async move {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(frames(&["a", "b"]))
        };
        let (source, answer) = cache.answer(key("x"), compute).await.unwrap();
        assert_eq!(source, expected);
        assert_eq!(read(answer).await.unwrap(), ["a", "b"]);
        // The computation is over when its last message was read; what is kept is kept by the task that ends then.
        while !cache.flights.is_empty() {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(computed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn those_who_come_meanwhile_share_the_computation() {
    let cache = cache(&[]);
    let (send, receive) = oneshot::channel();
    let compute = async move {
        let late = stream::once(async move { Ok(receive.await.unwrap()) });
        Ok(frames(&["a"]).chain(late).boxed())
    };
    let (first, one) = cache.answer(key("x"), compute).await.unwrap();
    let nobody = async { panic!("nobody computes it again") };
    let (second, two) = cache.answer(key("x"), nobody).await.unwrap();
    assert_eq!((first, second), (Source::Miss, Source::Joined));
    // The one it is computed for may go; the other still waits.
    drop(one);
    send.send(Bytes::from_static(b"b")).unwrap();
    assert_eq!(read(two).await.unwrap(), ["a", "b"]);
}

#[tokio::test]
async fn a_computation_ends_when_the_last_who_waits_has_gone() {
    let cache = cache(&[]);
    let dropped = CancellationToken::new();
    let guard = dropped.clone().drop_guard();
    let compute = async move {
        let forever = stream::pending().map(move |never| {
            let _held = &guard;
            never
        });
        Ok(frames(&["a"]).chain(forever).boxed())
    };
    let (_, answer) = cache.answer(key("x"), compute).await.unwrap();
    drop(answer);
    dropped.cancelled().await;
}

#[tokio::test]
async fn a_part_of_an_answer_is_never_kept() {
    let cache = cache(&[]);
    let breaks = async {
        let end = stream::iter([Err(Fault::new(ErrorCode::UpstreamFailed, "broke off"))]);
        Ok(frames(&["a"]).chain(end).boxed())
    };
    let (_, answer) = cache.answer(key("x"), breaks).await.unwrap();
    assert_eq!(read(answer).await, Err(ErrorCode::UpstreamFailed));
    while !cache.flights.is_empty() {
        tokio::task::yield_now().await;
    }
    let (source, answer) = cache.answer(key("x"), async { Ok(frames(&["b"])) }).await.unwrap();
    assert_eq!((source, read(answer).await.unwrap()), (Source::Miss, vec!["b".to_owned()]));
}

#[tokio::test]
async fn a_failure_before_the_first_message_is_everyones_own() {
    let cache = cache(&[]);
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let fails = async move {
        wait.notified().await;
        Err(Fault::new(ErrorCode::Timeout, "late"))
    };
    let first = cache.answer(key("x"), fails);
    let second = async {
        let (source, answer) = cache.answer(key("x"), async { Ok(frames(&["b"])) }).await.unwrap();
        (source, read(answer).await.unwrap())
    };
    let release = async {
        while cache.flights.is_empty() {
            tokio::task::yield_now().await;
        }
        go.notify_one();
    };
    let (first, second, ()) = tokio::join!(first, second, release);
    assert_eq!(first.err().unwrap().code, ErrorCode::Timeout);
    assert_eq!(second, (Source::Miss, vec!["b".to_owned()]));
}

#[tokio::test]
async fn a_large_answer_is_not_kept() {
    let cache = cache(&[("EDGE__CACHE__ENTRY_BYTES", "3")]);
    for expected in [Source::Miss, Source::Miss] {
        let (source, answer) =
            cache.answer(key("x"), async { Ok(frames(&["ab", "cd"])) }).await.unwrap();
        assert_eq!(source, expected);
        assert_eq!(read(answer).await.unwrap(), ["ab", "cd"]);
        while !cache.flights.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_redis_that_is_away_is_a_miss() {
    // Bound and never accepted from: a port that nothing answers on.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let cache = cache(&[("EDGE__CACHE__STORE", "redis"), ("EDGE__STATE__REDIS_URL", url.as_str())]);
    for _ in 0..2 {
        let (source, answer) = cache.answer(key("x"), async { Ok(frames(&["a"])) }).await.unwrap();
        assert_eq!(source, Source::Miss);
        assert_eq!(read(answer).await.unwrap(), ["a"]);
    }
}
