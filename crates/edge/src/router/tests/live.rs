//! Another configuration put in force while requests run.

use super::*;
use std::sync::Arc;

/// The options of `edge` with others on top.
fn changed(edge: &Edge, change: impl FnOnce(&mut Config)) -> Config {
    let mut config = edge.config.clone();
    change(&mut config);
    config
}

async fn status(edge: &Edge, key: &str) -> u16 {
    let mut request = post(&inference("/chat/completions"), says("hi").to_string());
    request.headers_mut().insert("api-key", key.parse().unwrap());
    let router = edge.live.current().router.clone();
    router.oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn keys_and_bounds_change_and_what_was_used_stays_used() {
    let edge = edge(&[
        ("EDGE__AUTH__KEYS", "[\"old\"]"),
        ("EDGE__RATES__CLASSES", "[{name='few',limits={requests_per_day=2}}]"),
        ("EDGE__RATES__DEFAULT_CLASS", "few"),
    ])
    .await;
    assert_eq!((status(&edge, "old").await, status(&edge, "new").await), (200, 401));
    let next = changed(&edge, |config| config.auth.keys.push(chassis::Secret::new("new")));
    edge.live.replace(next).unwrap();
    assert_eq!(status(&edge, "new").await, 200);
    assert_eq!((status(&edge, "old").await, status(&edge, "old").await), (200, 429));
    let next = changed(&edge, |config| config.limits.body_bytes = 10);
    edge.live.replace(next).unwrap();
    assert_eq!((status(&edge, "old").await, status(&edge, "new").await), (413, 401));
}

#[tokio::test]
async fn what_cannot_be_built_changes_nothing_and_says_which_option() {
    let edge = edge(&[("EDGE__AUTH__KEYS", "[\"old\"]")]).await;
    for (change, expected) in [
        (
            (|c: &mut Config| c.auth.key_file = "/nowhere".to_owned()) as fn(&mut Config),
            "`edge.auth.key_file`",
        ),
        (|c| c.doors.token_file = "/nowhere".to_owned(), "`edge.doors.token_file`"),
        (|c| c.chat.endpoints = vec!["ftp://x".to_owned()], "`edge.chat.endpoints`"),
    ] {
        let mut next = changed(&edge, change);
        next.limits.body_bytes = 10;
        let error = format!("{:#}", edge.live.replace(next).unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert_eq!(status(&edge, "old").await, 200);
    }
}

#[tokio::test]
async fn a_deployment_is_added_without_asking_the_services_again() {
    let edge = edge(&[]).await;
    let before = edge.live.current();
    let first = Arc::clone(&before.app.table().all()[0]);
    let entry = format!("[{{name='alias',service='chat',model='{}'}}]", first.model);
    let env = vec![("EDGE__DEPLOYMENTS".to_owned(), entry)];
    let fresh: Config = load("edge", crate::DEFAULTS, &Sources { file: None, env }).unwrap();
    let next = changed(&edge, |config| config.deployments = fresh.deployments);
    edge.live.replace(next).unwrap();
    let names = |g: &crate::live::Generation| {
        g.app.table().all().iter().map(|d| d.name.clone()).collect::<Vec<_>>()
    };
    assert!(names(&edge.live.current()).contains(&"alias".to_owned()));
    assert!(!names(&before).contains(&"alias".to_owned()), "requests that run keep theirs");
    // Services somewhere else are other services.
    let next =
        changed(&edge, |config| config.chat.endpoints = vec!["http://127.0.0.1:1".to_owned()]);
    edge.live.replace(next).unwrap();
    let answer = edge.live.current().app.list_chat(Duration::from_secs(5)).await;
    assert_eq!(answer.unwrap_err().code(), tonic::Code::Unavailable);
}
