//! Keys and tokens against a whole stack: what they open, and how they change while it runs.

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chassis::Tasks;
use e2e::{KEY, TestStack};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;

/// No wait of these tests takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);
const VERSION: &str = "api-version=2024-05-01-preview";

async fn chat(stack: &TestStack, key: &str) -> u16 {
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let request = stack.http().post(stack.url(&format!("/chat/completions?{VERSION}")));
    let request = request.header("content-type", "application/json").bearer_auth(key);
    request.body(body.to_string()).send().await.unwrap().status().as_u16()
}

async fn info(stack: &TestStack, key: &str) -> (u16, Value) {
    let request = stack.http().get(stack.url(&format!("/info?{VERSION}"))).header("api-key", key);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

async fn until(stack: &TestStack, key: &str, status: u16) {
    let seen = async { while chat(stack, key).await != status {} };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_added_and_withdrawn_while_requests_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let new = standalone::keys::new("team-a").unwrap();
    std::fs::write(&path, format!("{}\nroutes = ['chat']\n", new.entry)).unwrap();
    let stack = TestStack::start_with(&[
        ("EDGE__AUTH__KEY_FILE", path.to_str().unwrap()),
        ("EDGE__AUTH__RELOAD_MS", "5"),
    ])
    .await;
    let key = new.key.expose();
    assert_eq!(chat(&stack, key).await, 200);
    let (status, body) = info(&stack, key).await;
    assert_eq!((status, &body["error"]["code"]), (403, &json!("PermissionDenied")));
    assert_eq!(info(&stack, KEY).await.0, 200, "keys of the configuration hold beside the file");
    let next = standalone::keys::new("team-b").unwrap();
    // A mistake changes nothing; the next good file counts.
    std::fs::write(&path, format!("{}\nroutes = ['chat'\n", next.entry)).unwrap();
    assert_eq!(chat(&stack, key).await, 200);
    std::fs::write(&path, &next.entry).unwrap();
    until(&stack, next.key.expose(), 200).await;
    assert_eq!(chat(&stack, key).await, 401);
    stack.stop().await;
}

/// An identity provider with one key; its address.
async fn provider(pair: &EcdsaKeyPair, tasks: &Tasks) -> String {
    let point = pair.public_key().as_ref();
    let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
    let keys =
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "k", "x": x, "y": y}]});
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let found = json!({"jwks_uri": format!("{url}/keys")}).to_string();
    let router = Router::new()
        .route("/keys", get(move || std::future::ready(keys.to_string())))
        .route("/.well-known/openid-configuration", get(move || std::future::ready(found.clone())));
    tasks.spawn(async move { axum::serve(listener, router).await });
    url
}

fn token(pair: &EcdsaKeyPair, issuer: &str, role: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"iss": issuer, "aud": "api://koine", "oid": "app", "roles": [role],
        "nbf": now, "exp": now + 300});
    let header = json!({"alg": "ES256", "kid": "k", "typ": "JWT"});
    let text =
        format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let signature = pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
    format!("{text}.{}", BASE64.encode(signature))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_provider_opens_what_its_role_grants() {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
    let pair =
        EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &SystemRandom::new()).unwrap();
    let tasks = Tasks::new();
    let url = provider(&pair, &tasks).await;
    let stack = TestStack::start_with(&[
        ("EDGE__AUTH__JWT__ISSUERS", &format!("[\"{url}\"]")),
        ("EDGE__AUTH__JWT__AUDIENCES", "[\"api://koine\"]"),
        (
            "EDGE__AUTH__JWT__GRANTS",
            "[{claim='roles',values=['User'],routes=['chat'],class='small'},{claim='roles',values=['Reader'],routes=['models']}]",
        ),
        ("EDGE__RATES__CLASSES", "[{name='small',limits={requests_per_day=2}}]"),
    ])
    .await;
    let user = token(&pair, &url, "User");
    assert_eq!((chat(&stack, &user).await, chat(&stack, &user).await), (200, 200));
    assert_eq!(chat(&stack, &user).await, 429, "the class of its role holds");
    assert_eq!(info(&stack, &user).await.0, 401, "a token is no key");
    assert_eq!(chat(&stack, &token(&pair, &url, "Reader")).await, 403);
    assert_eq!(chat(&stack, &token(&pair, &url, "Nobody")).await, 403);
    assert_eq!(chat(&stack, &token(&pair, "https://elsewhere", "User")).await, 401);
    assert_eq!(chat(&stack, KEY).await, 200, "keys hold beside tokens");
    stack.stop().await;
    tasks.stop(Duration::ZERO).await;
}
