//! What a key may do, seen over the whole router.

use super::*;
use std::io::Write as _;

/// An edge with a key file that holds `keys`: name (which is the key, too) and what stands beside it.
async fn with_keys(keys: &[(&str, &str)]) -> (Edge, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let mut file = std::fs::File::create(&path).unwrap();
    for (name, more) in keys {
        let hash = crate::auth::hash_of(name);
        writeln!(file, "[[keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{more}").unwrap();
    }
    (edge(&[("EDGE__AUTH__KEY_FILE", path.to_str().unwrap())]).await, dir)
}

async fn ask(edge: &Edge, key: &str, path: &str, body: &Value) -> Answer {
    edge.post_with(("api-key", key), path, body).await
}

async fn get(edge: &Edge, key: &str, path: &str) -> Answer {
    edge.send(Request::get(path).header("api-key", key).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_key_outside_its_routes_is_403() {
    let (edge, _dir) = with_keys(&[
        ("chat-only", "routes = ['chat']"),
        ("openai-only", "routes = ['openai']"),
        ("all", ""),
    ])
    .await;
    let text = json!({"input": "a"});
    for (key, path, body, status) in [
        ("chat-only", inference("/chat/completions"), says("hi"), 200),
        ("chat-only", "/v1/chat/completions".to_owned(), says("hi"), 200),
        ("chat-only", inference("/embeddings"), text.clone(), 403),
        ("openai-only", "/v1/embeddings".to_owned(), text.clone(), 200),
        ("openai-only", inference("/embeddings"), text.clone(), 403),
        ("openai-only", inference("/nowhere"), text.clone(), 403),
        ("all", inference("/nowhere"), text.clone(), 404),
        ("all", inference("/embeddings"), text, 200),
    ] {
        let answer = ask(&edge, key, &path, &body).await;
        assert_eq!(answer.status, status, "{key} {path}: {}", answer.text);
        if status == 403 {
            assert_eq!(answer.json()["error"]["code"], "PermissionDenied");
            assert_eq!(answer.headers["x-ms-error-code"], "PermissionDenied");
            assert!(!answer.headers.contains_key("retry-after"));
        }
    }
    assert_eq!(get(&edge, "chat-only", &inference("/info")).await.status, 403);
}

#[tokio::test]
async fn a_key_outside_its_deployments_is_403_and_does_not_see_them() {
    let (edge, _dir) = with_keys(&[("team", "deployments = ['TALK', 'vec*']")]).await;
    let model =
        |name: &str| json!({"model": name, "messages": [{"role": "user", "content": "hi"}]});
    let path = inference("/chat/completions");
    assert_eq!(ask(&edge, "team", &path, &model("talk")).await.status, 200);
    let refused = ask(&edge, "team", &path, &model("Other")).await;
    assert_eq!(refused.status, 403);
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("this deployment"));
    assert_eq!(ask(&edge, "team", &path, &model("nobody")).await.status, 404);
    let list = get(&edge, "team", "/v1/models").await.json();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|m| m["id"].clone()).collect();
    assert_eq!(ids, ["talk", "vectors"]);
    assert_eq!(get(&edge, "team", "/v1/models/talk").await.status, 200);
    assert_eq!(get(&edge, "team", "/v1/models/Other").await.status, 403);
    let info = get(&edge, "team", "/info?api-version=2024-05-01-preview&model=Other").await;
    assert_eq!(info.status, 403);
}

#[tokio::test]
async fn an_expired_key_is_401_and_says_so() {
    let (edge, _dir) = with_keys(&[("old", "expires = 2001-01-01")]).await;
    let answer = ask(&edge, "old", &inference("/chat/completions"), &says("hi")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (401, &json!("401")));
    assert!(answer.text.contains("expired") && !answer.headers.contains_key("retry-after"));
    let unknown = ask(&edge, "none", &inference("/chat/completions"), &says("hi")).await;
    assert!(unknown.status == 401 && !unknown.text.contains("expired"));
}

#[tokio::test]
async fn a_key_in_the_shadow_is_judged_and_never_blocked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let key = |name: &str, more: &str| {
        format!(
            "[[keys]]\nname = \"{name}\"\nsha256 = \"{}\"\n{more}\n",
            crate::auth::hash_of(name)
        )
    };
    std::fs::write(&path, key("trial", "shadow = true") + &key("plain", "")).unwrap();
    let file = ("EDGE__AUTH__KEY_FILE", path.to_str().unwrap());
    let edge = edge(&[file, ("EDGE__GUARD__POLICY", "default")]).await;
    for (key, status) in [("trial", 200), ("plain", 400)] {
        let answer = ask(&edge, key, &inference("/chat/completions"), &says("a bad thing")).await;
        assert_eq!(answer.status, status, "{key}: {}", answer.text);
    }
    let shadows: Vec<bool> = edge.seen.screened.lock().unwrap().iter().map(|r| r.shadow).collect();
    assert_eq!(shadows, [true, true, false], "prompt and reply of one, prompt of the other");
}
