//! Limits of a caller: how an answer says that there were too many requests, and when to come back.

use crate::ask::{Answer, everywhere, is_openai, post, says};
use e2e::TestStack;
use serde_json::json;

/// Requests that one caller has for one deployment in a minute.
const EACH_MINUTE: u64 = 2;

fn number(answer: &Answer, name: &str) -> u64 {
    let text = answer.header(name);
    text.parse().unwrap_or_else(|_| panic!("{}: {name}: `{text}` is no whole number", answer.path))
}

#[tokio::test(flavor = "multi_thread")]
async fn v36_over_the_rate_limit_is_429_with_every_header_that_clients_wait_by() {
    for path in &everywhere("/chat/completions", "talk") {
        // A stack each, since the limit is the deployment's by whatever path it is asked.
        let options = [
            (
                "EDGE__RATES__CLASSES",
                "[{name='tight', limits={requests_per_minute=2, tokens_per_minute=100000}}]",
            ),
            ("EDGE__RATES__DEFAULT_CLASS", "tight"),
        ];
        let stack = TestStack::start_with(&options).await;
        for left in (0..EACH_MINUTE).rev() {
            let answer = post(&stack, path, &says("talk", "hi")).await;
            assert_eq!(answer.said(), "You said: hi");
            assert_eq!(number(&answer, "x-ratelimit-limit-requests"), EACH_MINUTE);
            assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), left);
            assert_eq!(number(&answer, "x-ratelimit-limit-tokens"), 100_000);
            assert!(number(&answer, "x-ratelimit-remaining-tokens") < 100_000);
            assert!(!answer.headers.contains_key("retry-after"));
        }
        let answer = post(&stack, path, &says("talk", "hi")).await;
        let said = answer.refused(429, "429");
        let seconds = number(&answer, "retry-after");
        assert!((1..=60).contains(&seconds), "{seconds}: some clients sleep all of it");
        assert_eq!(number(&answer, "retry-after-ms").div_ceil(1000), seconds);
        assert_eq!(number(&answer, "x-ratelimit-limit-requests"), EACH_MINUTE);
        assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), 0);
        assert!(number(&answer, "x-ratelimit-reset-requests") >= 1);
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("retry after {seconds} seconds")), "{message}");
        if !is_openai(path) {
            assert_eq!((&said["status"], &said["message"]), (&json!(429), &json!(message)));
        }
        // Another deployment is counted by itself.
        if !path.contains("deployments") {
            assert_eq!(post(&stack, path, &says("free-talk", "hi")).await.status, 200);
        }
        stack.stop().await;
    }
}
