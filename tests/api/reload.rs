//! The configuration file of a running stack changes.

use crate::ask::{Ask, B, get, post, says};
use e2e::{KEY, TestStack};
use std::path::PathBuf;
use std::time::Duration;

/// No wait of these tests takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// A configuration file in a directory that goes with the test.
struct File {
    dir: tempfile::TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let file = Self { dir: tempfile::tempdir().unwrap() };
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("koine.toml")
    }

    /// In one step, as editors and mounted volumes do.
    fn write(&self, text: &str) {
        let beside = self.dir.path().join("next");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.path()).unwrap();
    }
}

fn chat() -> String {
    format!("/chat/completions?{B}")
}

/// Chats until the answer has `status`.
async fn until(stack: &TestStack, model: &str, status: u16) {
    let path = chat();
    let seen = async { while post(stack, &path, &says(model, "hi")).await.status != status {} };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_file_is_taken_and_a_bad_one_changes_nothing() {
    let file = File::new("");
    let stack = TestStack::start_with_file(&file.path(), &[]).await;
    assert_eq!(post(&stack, &chat(), &says("talk", "hi")).await.status, 200);
    file.write("[edge.guard]\npolicy = ''\n[edge.api]\ndocs = false\n");
    let closed = async { while get(&stack, "/openapi.json").await.status == 200 {} };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    // Wrong in the table of another service: all of it or nothing.
    file.write("[edge.api]\ndocs = true\n[chat.limits]\nno_such_option = 1\n");
    file.write("[edge.api]\ndocs = true\n[edge.limits]\nbody_bytes = 0\n");
    for _ in 0..20 {
        assert_eq!(get(&stack, "/openapi.json").await.status, 404);
    }
    file.write("[edge.api]\ndocs = true\n");
    let open = async { while get(&stack, "/openapi.json").await.status != 200 {} };
    tokio::time::timeout(PATIENCE, open).await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_comes_and_goes_while_a_stream_runs() {
    let file = File::new("");
    let stack = TestStack::start_with_file(&file.path(), &[]).await;
    let body = crate::ask::with(says("free-talk", "/hang"), "stream", true.into());
    let mut stream =
        Ask::new(&stack, "POST", &chat()).header(("api-key", KEY)).json(&body).begin().await;
    stream.chunk().await.unwrap().unwrap();
    file.write("[edge.rates]\ndefault_class = 'none'\n[[edge.rates.classes]]\nname = 'none'\nlimits = { requests_per_day = 1 }\n");
    until(&stack, "talk", 429).await;
    assert_eq!(stack.parrot.running(), 1, "what runs goes on");
    file.write("");
    until(&stack, "talk", 200).await;
    assert_eq!(stack.parrot.running(), 1);
    drop(stream);
    stack.stop().await;
}
