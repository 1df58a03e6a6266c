//! Tests of the door: which credentials let in, and a key file that changes.

use super::*;
use chassis::config::{Sources, load};
use http::HeaderValue;
use std::path::Path;

/// No wait of these tests takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(10);
const OUTSIDE: &str = "0.0.0.0:1";

fn config(env: &[(&str, &str)]) -> Config {
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load("edge", crate::DEFAULTS, &Sources { file: None, env }).unwrap()
}

fn access(env: &[(&str, &str)], address: &str) -> Result<Access, AccessError> {
    Access::build(&config(env), address.parse().unwrap())
}

async fn name(access: &Access, headers: &[(&'static str, &str)]) -> Result<String, u16> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let caller = access.identify(&map).await;
    caller.map(|caller| caller.name.clone()).map_err(|fault| fault.code.http())
}

async fn admits(headers: &[(&'static str, &str)]) -> bool {
    let access = access(&[("EDGE__AUTH__KEYS", "[\"right\", \"other\"]")], OUTSIDE).unwrap();
    name(&access, headers).await.is_ok()
}

#[tokio::test]
async fn any_valid_key_in_any_header_lets_in() {
    assert!(admits(&[("api-key", "right")]).await);
    assert!(admits(&[("authorization", "Bearer other")]).await);
    assert!(admits(&[("authorization", "bEaReR right")]).await);
    assert!(admits(&[("ocp-apim-subscription-key", "right")]).await);
    assert!(admits(&[("api-key", "wrong"), ("authorization", "Bearer right")]).await);
}

#[tokio::test]
async fn a_wrong_or_missing_key_does_not() {
    assert!(!admits(&[]).await);
    assert!(!admits(&[("api-key", "righ")]).await);
    assert!(!admits(&[("api-key", "")]).await);
    assert!(!admits(&[("authorization", "right")]).await);
    assert!(!admits(&[("authorization", "Basic right")]).await);
}

#[tokio::test]
async fn no_keys_is_for_loopback_only() {
    let open = access(&[], "127.0.0.1:8080").unwrap();
    assert!(open.is_open() && name(&open, &[]).await.is_ok());
    assert!(matches!(access(&[], OUTSIDE), Err(AccessError::NoKeys { .. })));
    assert!(access(&[("EDGE__AUTH__DISABLED", "true")], OUTSIDE).unwrap().is_open());
}

#[tokio::test]
async fn plain_keys_have_names_that_tell_nothing_of_them() {
    let access = access(&[("EDGE__AUTH__KEYS", "[\"right\", \"other\"]")], OUTSIDE).unwrap();
    let right = name(&access, &[("api-key", "right")]).await.unwrap();
    let other = name(&access, &[("api-key", "other")]).await.unwrap();
    assert!(right.starts_with("key-") && !right.contains("right") && right != other);
    assert_eq!(right, format!("key-{}", &hash_of("right")[..12]));
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn entry(name: &str, key: &str, more: &str) -> String {
    format!("[[keys]]\nname = \"{name}\"\nsha256 = \"{}\"\n{more}\n", hash_of(key))
}

#[tokio::test]
async fn a_plain_key_file_holds_one_key_a_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    write(file.path(), "# keys\n\nfrom-file \n");
    let path = file.path().display().to_string();
    let access = access(&[("EDGE__AUTH__KEY_FILE", &path)], OUTSIDE).unwrap();
    assert!(name(&access, &[("api-key", "from-file")]).await.is_ok());
    assert_eq!(name(&access, &[("api-key", "# keys")]).await, Err(401));
}

#[tokio::test]
async fn a_key_file_that_is_wrong_or_missing_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let build = || access(&[("EDGE__AUTH__KEY_FILE", path.to_str().unwrap())], OUTSIDE);
    assert!(build().unwrap_err().to_string().contains("cannot read"));
    write(&path, &entry("a", "secret", "class = 'gold'"));
    let message = build().unwrap_err().to_string();
    assert!(message.contains("edge.auth.key_file") && message.contains("`gold`"), "{message}");
    write(&path, "");
    assert!(build().unwrap_err().to_string().contains("holds no key"));
}

async fn until(access: &Access, key: &str, expected: Result<&str, u16>) {
    let expected = expected.map(str::to_owned);
    let check = async {
        while name(access, &[("api-key", key)]).await != expected {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, check).await.unwrap();
}

#[tokio::test]
async fn a_key_file_is_read_again_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    write(&path, &entry("old", "one", ""));
    let options =
        [("EDGE__AUTH__KEY_FILE", path.to_str().unwrap()), ("EDGE__AUTH__RELOAD_MS", "1")];
    let access = access(&options, OUTSIDE).unwrap();
    let tasks = Tasks::new();
    access.keep_fresh(&tasks);
    until(&access, "one", Ok("old")).await;
    write(&path, &(entry("new", "two", "") + &entry("over", "three", "expires = 2001-01-01")));
    until(&access, "two", Ok("new")).await;
    assert_eq!(name(&access, &[("api-key", "one")]).await, Err(401));
    assert_eq!(name(&access, &[("api-key", "three")]).await, Err(401));
    write(&path, "[[keys]]\nname = ");
    std::fs::remove_file(&path).unwrap();
    let file = access.inner.file.as_ref().unwrap();
    let noticed = async {
        // The task may have seen the one state, the other or both: what counts is that the keys stay.
        while file.changed().await.is_some() {}
    };
    tokio::time::timeout(PATIENCE, noticed).await.unwrap();
    assert_eq!(name(&access, &[("api-key", "two")]).await, Ok("new".to_owned()));
    write(&path, &entry("back", "four", ""));
    until(&access, "four", Ok("back")).await;
    tasks.stop(PATIENCE).await;
}
