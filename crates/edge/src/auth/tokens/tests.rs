//! Tests of tokens: keys made here, and a provider on a loopback listener. `rsa.json` holds the public key and one token of a
//! key that was thrown away: nothing here can make RSA keys.

use super::*;
use crate::auth::Access;
use crate::config::Config;
use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chassis::Tasks;
use chassis::config::{Sources, load};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

const ISSUER: &str = "https://issuer.test/v2.0";
const AUDIENCE: &str = "api://koine";
const GRANTS: &str = "[{claim='roles',values=['Koine.User'],routes=['chat'],deployments=['talk'],class='gold'},\
     {claim='scp',values=['embed'],routes=['embeddings']},{claim='realm.roles',values=['all']}]";

/// An identity provider.
struct Provider {
    keys: Arc<Mutex<Vec<Value>>>,
    fetches: Arc<AtomicUsize>,
    url: String,
    tasks: Tasks,
}

impl Provider {
    async fn start(keys: Vec<Value>) -> Self {
        let (keys, fetches) = (Arc::new(Mutex::new(keys)), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (served, counted) = (Arc::clone(&keys), Arc::clone(&fetches));
        let jwks = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(json!({"keys": *served.lock().unwrap()}).to_string())
        };
        let found = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
        let router = Router::new()
            .route("/keys", get(jwks))
            .route(DISCOVERY, get(move || std::future::ready(found.clone())));
        let tasks = Tasks::new();
        tasks.spawn(async move { axum::serve(listener, router).await });
        Self { keys, fetches, url, tasks }
    }

    fn access(&self, more: &[(&str, &str)]) -> Access {
        let url = format!("{}/keys", self.url);
        let mut env = vec![
            ("EDGE__AUTH__JWT__ISSUERS", format!("[\"{ISSUER}\"]")),
            ("EDGE__AUTH__JWT__AUDIENCES", format!("[\"other\", \"{AUDIENCE}\"]")),
            ("EDGE__AUTH__JWT__JWKS_URL", url),
            ("EDGE__AUTH__JWT__GRANTS", GRANTS.to_owned()),
            ("EDGE__RATES__CLASSES", "[{name='gold'}]".to_owned()),
        ];
        env.extend(more.iter().map(|(k, v)| (*k, (*v).to_owned())));
        let env = env.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let config: Config = load("edge", crate::DEFAULTS, &Sources { file: None, env }).unwrap();
        Access::build(&config, "0.0.0.0:1".parse().unwrap()).unwrap()
    }
}

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// A key of the provider.
struct Signer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self { id, pair: EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap() }
    }

    fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn public(&self) -> Value {
        let (x, y) = (BASE64.encode(&self.point()[1..33]), BASE64.encode(&self.point()[33..]));
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": x, "y": y})
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({"typ": "JWT", "alg": "ES256", "kid": self.id}), claims)
    }

    fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let text = unsigned(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", BASE64.encode(signature))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()))
}

fn seconds(from_now: i64) -> i64 {
    i64::try_from(crate::app::unix_seconds()).unwrap() + from_now
}

/// Valid claims, with `more` in their place.
fn claims(more: &Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "oid": "somebody", "tid": "tenant",
        "roles": ["Koine.User"], "nbf": seconds(-5), "exp": seconds(300)});
    for (name, value) in more.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

async fn ask(access: &Access, token: &str) -> Result<Arc<Caller>, u16> {
    let value = format!("Bearer {token}").parse().unwrap();
    let headers = http::HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
    access.identify(&headers).await.map_err(|fault| fault.code.http())
}

#[tokio::test]
async fn a_valid_token_permits_what_its_claims_grant() {
    use crate::context::Family;
    use crate::events::Route;
    let signer = Signer::new("one");
    let provider = Provider::start(vec![signer.public()]).await;
    let access = provider.access(&[]);
    let caller = ask(&access, &signer.sign(&claims(&json!({})))).await.unwrap();
    assert_eq!((caller.name.as_str(), caller.class.as_deref()), ("token:somebody", Some("gold")));
    let may = |caller: &Caller, name, route| caller.may_use(name, route, Family::Inference).is_ok();
    assert!(may(&caller, "talk", Route::ChatCompletions));
    assert!(!may(&caller, "other", Route::ChatCompletions));
    assert!(!may(&caller, "talk", Route::Embeddings));
    let both = claims(&json!({"scp": "openid embed", "aud": ["x", AUDIENCE]}));
    let caller = ask(&access, &signer.sign(&both)).await.unwrap();
    assert!(may(&caller, "talk", Route::ChatCompletions) && may(&caller, "v", Route::Embeddings));
    let deep = claims(&json!({"roles": null, "realm": {"roles": ["all"]}}));
    let caller = ask(&access, &signer.sign(&deep)).await.unwrap();
    assert!(may(&caller, "anything", Route::Info));
    let nothing = claims(&json!({"roles": ["Koine.User.Not"]}));
    assert_eq!(ask(&access, &signer.sign(&nothing)).await.err(), Some(403));
}

#[tokio::test]
async fn a_token_with_one_thing_wrong_is_refused() {
    let signer = Signer::new("one");
    let provider = Provider::start(vec![signer.public()]).await;
    let access = provider.access(&[("EDGE__AUTH__JWT__REQUIRED", "{tid='tenant'}")]);
    assert!(ask(&access, &signer.sign(&claims(&json!({})))).await.is_ok());
    for wrong in [
        json!({"iss": "https://issuer.test/"}),
        json!({"iss": null}),
        json!({"aud": "api://koine2"}),
        json!({"aud": null}),
        json!({"exp": seconds(-120)}),
        json!({"exp": null}),
        json!({"exp": "soon"}),
        json!({"nbf": seconds(120)}),
        json!({"nbf": "now"}),
        json!({"tid": "another"}),
        json!({"tid": null}),
        json!({"oid": null}),
        json!({"oid": ""}),
    ] {
        let token = signer.sign(&claims(&wrong));
        assert_eq!(ask(&access, &token).await.err(), Some(401), "{wrong}");
    }
    // Within the leeway a clock may be wrong.
    for skewed in [json!({"exp": seconds(-30)}), json!({"nbf": seconds(30)})] {
        assert!(ask(&access, &signer.sign(&claims(&skewed))).await.is_ok(), "{skewed}");
    }
}

#[tokio::test]
async fn only_the_providers_signature_counts() {
    let (signer, stranger) = (Signer::new("one"), Signer::new("one"));
    let provider = Provider::start(vec![signer.public()]).await;
    let access = provider.access(&[]);
    let valid = claims(&json!({}));
    let good = signer.sign(&valid);
    assert_eq!(ask(&access, &stranger.sign(&valid)).await.err(), Some(401));
    let (text, _) = good.rsplit_once('.').unwrap();
    assert_eq!(ask(&access, &format!("{text}.")).await.err(), Some(401));
    let other = claims(&json!({"roles": ["Koine.User", "Koine.Admin"]}));
    let forged =
        good.replacen(good.split('.').nth(1).unwrap(), &BASE64.encode(other.to_string()), 1);
    assert_eq!(ask(&access, &forged).await.err(), Some(401));
    for algorithm in ["none", "None", "HS256"] {
        let text = unsigned(&json!({"alg": algorithm, "kid": "one"}), &valid);
        assert_eq!(ask(&access, &format!("{text}.")).await.err(), Some(401), "{algorithm}");
    }
    // The public key as the shared secret of an HMAC.
    let text = unsigned(&json!({"alg": "HS256", "kid": "one"}), &valid);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, signer.point());
    let tag = BASE64.encode(ring::hmac::sign(&key, text.as_bytes()));
    assert_eq!(ask(&access, &format!("{text}.{tag}")).await.err(), Some(401));
    let unknown = json!({"alg": "ES256", "kid": "one", "crit": ["b64"], "b64": true});
    assert_eq!(ask(&access, &signer.sign_with(&unknown, &valid)).await.err(), Some(401));
    for junk in ["", "a.b", "a.b.c", "..", &"a.".repeat(20_000)] {
        assert_eq!(ask(&access, junk).await.err(), Some(401));
    }
}

#[tokio::test]
async fn an_algorithm_must_be_one_of_those_configured_and_fit_its_key() {
    let signer = Signer::new("one");
    let mut public = signer.public();
    let provider = Provider::start(vec![public.clone()]).await;
    let token = signer.sign(&claims(&json!({})));
    let rsa_only = provider.access(&[("EDGE__AUTH__JWT__ALGORITHMS", "[\"RS256\"]")]);
    assert_eq!(ask(&rsa_only, &token).await.err(), Some(401));
    public["alg"] = json!("ES384");
    *provider.keys.lock().unwrap() = vec![public.clone()];
    assert_eq!(ask(&provider.access(&[]), &token).await.err(), Some(401));
    public["alg"] = json!("ES256");
    public["use"] = json!("enc");
    *provider.keys.lock().unwrap() = vec![public];
    assert_eq!(ask(&provider.access(&[]), &token).await.err(), Some(503), "no usable key at all");
}

#[tokio::test]
async fn rsa_as_entra_id_signs_and_keys_of_unknown_kinds_beside_it() {
    let fixture: Value = serde_json::from_str(include_str!("rsa.json")).unwrap();
    let rsa = json!({"kty": "RSA", "use": "sig", "kid": "rsa", "n": fixture["n"], "e": "AQAB",
        "x5t": "rsa", "x5c": ["MIIC"], "issuer": ISSUER});
    let strange = json!({"kty": "ML-DSA", "kid": "pq", "pub": "AA"});
    let shared = json!({"kty": "oct", "kid": "oct", "k": "c2VjcmV0"});
    let provider = Provider::start(vec![strange, shared, rsa]).await;
    let access = provider.access(&[]);
    let token = fixture["token"].as_str().unwrap();
    assert_eq!(ask(&access, token).await.unwrap().name, "token:0f9d");
    let (text, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = BASE64.decode(signature).unwrap();
    bytes[100] ^= 1;
    let forged = format!("{text}.{}", BASE64.encode(bytes));
    assert_eq!(ask(&access, &forged).await.err(), Some(401));
    let text = unsigned(&json!({"alg": "HS256", "kid": "oct"}), &claims(&json!({})));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
    let tag = BASE64.encode(ring::hmac::sign(&key, text.as_bytes()));
    assert_eq!(ask(&access, &format!("{text}.{tag}")).await.err(), Some(401));
}

#[tokio::test]
async fn new_keys_are_found_and_unknown_ones_do_not_flood_the_provider() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let provider = Provider::start(vec![old.public()]).await;
    let access = provider.access(&[]);
    assert!(ask(&access, &old.sign(&claims(&json!({})))).await.is_ok());
    *provider.keys.lock().unwrap() = vec![new.public()];
    for _ in 0..20 {
        assert_eq!(ask(&access, &new.sign(&claims(&json!({})))).await.err(), Some(401));
    }
    assert_eq!(provider.fetches.load(Ordering::SeqCst), 1, "one attempt, and then a pause");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    assert!(ask(&access, &new.sign(&claims(&json!({})))).await.is_ok());
    assert_eq!(ask(&access, &old.sign(&claims(&json!({})))).await.err(), Some(401));
    assert_eq!(provider.fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_provider_that_is_gone_is_503_at_first_and_no_matter_later() {
    let signer = Signer::new("one");
    let provider = Provider::start(vec![signer.public()]).await;
    let token = signer.sign(&claims(&json!({})));
    let known = provider.access(&[]);
    assert!(ask(&known, &token).await.is_ok());
    // Nothing listens on the port of discard.
    let gone = provider.access(&[("EDGE__AUTH__JWT__JWKS_URL", "http://127.0.0.1:9/keys")]);
    assert_eq!(ask(&gone, &token).await.err(), Some(503));
    provider.tasks.stop(Duration::ZERO).await;
    assert!(ask(&known, &token).await.is_ok());
}

#[tokio::test]
async fn keys_are_found_by_discovery_and_fetched_before_anybody_asks() {
    let signer = Signer::new("one");
    let provider = Provider::start(vec![signer.public()]).await;
    let issuers = format!("[\"{}/\", \"{ISSUER}\"]", provider.url);
    let access = provider
        .access(&[("EDGE__AUTH__JWT__ISSUERS", &issuers), ("EDGE__AUTH__JWT__JWKS_URL", "")]);
    let tasks = Tasks::new();
    access.keep_fresh(&tasks);
    let fetched = async {
        while provider.fetches.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), fetched).await.unwrap();
    assert!(ask(&access, &signer.sign(&claims(&json!({})))).await.is_ok());
    tasks.stop(Duration::from_secs(10)).await;
}

#[test]
fn mistakes_are_named() {
    let wrong = |more: &[(&str, &str)]| {
        let mut env = vec![("EDGE__AUTH__JWT__ISSUERS".to_owned(), format!("[\"{ISSUER}\"]"))];
        env.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let loaded = load::<Config>("edge", crate::DEFAULTS, &Sources { file: None, env });
        loaded.unwrap_err().to_string()
    };
    let text = wrong(&[]);
    assert!(text.contains("edge.auth.jwt.audiences") && text.contains("`required`"), "{text}");
    for algorithm in ["none", "HS256"] {
        let text = wrong(&[("EDGE__AUTH__JWT__ALGORITHMS", &format!("[\"{algorithm}\"]"))]);
        assert!(text.contains(&format!("unknown variant `{algorithm}`")), "{text}");
    }
    let text = wrong(&[("EDGE__AUTH__JWT__GRANTS", "[{claim='a',values=[],class='no'}]")]);
    assert!(text.contains("grants[0].values") && text.contains("grants[0].class"), "{text}");
}
