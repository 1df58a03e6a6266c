//! Tests of admission: what is counted, given back, and who waits.

use super::*;
use chassis::config::{Sources, load};
use futures::FutureExt as _;
use tokio_util::task::AbortOnDropHandle;

const CLASS: &str = "[{name='c',limits={requests_per_minute=2,tokens_per_minute=100}},\
     {name='slow',priority='batch',limits={concurrent=1}}]";
const TOKENS: Estimate = Estimate { prompt: 10, completion: 20 };

fn limits(env: &[(&str, &str)]) -> Limits {
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let config: Config = load("edge", crate::DEFAULTS, &Sources { file: None, env }).unwrap();
    Limits::build(&config, &Tasks::new()).unwrap()
}

fn caller(name: &str, class: &str) -> Caller {
    Caller::new(name.to_owned(), Some(class.to_owned()), Vec::new())
}

fn header(outcome: &Outcome, name: &str) -> Option<String> {
    let mut headers = http::HeaderMap::new();
    outcome.figures.unwrap().write(&mut headers);
    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn without_a_class_nothing_is_limited() {
    let limits = limits(&[("EDGE__RATES__CLASSES", CLASS)]);
    for _ in 0..10 {
        let outcome = limits.admit(&Caller::anybody(), "talk", TOKENS).await;
        assert!(outcome.figures.is_none() && outcome.ticket.unwrap().is_none());
    }
}

#[tokio::test]
async fn callers_and_deployments_are_counted_apart() {
    let limits = limits(&[("EDGE__RATES__CLASSES", CLASS)]);
    for (name, deployment) in [("a", "talk"), ("b", "talk"), ("a", "other")] {
        for _ in 0..2 {
            let ticket = limits.admit(&caller(name, "c"), deployment, TOKENS).await.ticket;
            ticket.unwrap().unwrap().settle(Spent::Reserved);
        }
        let refused = limits.admit(&caller(name, "c"), deployment, TOKENS).await;
        assert_eq!(header(&refused, "policy-id").unwrap(), "DeploymentRatelimit-Call");
        let fault = refused.ticket.unwrap_err();
        assert_eq!(fault.code, ErrorCode::RateLimited);
        assert!(
            fault.message.contains("request rate limit of this deployment. Please retry after ")
        );
        assert!(fault.retry_after.unwrap() <= LONGEST_RETRY);
    }
}

#[tokio::test]
async fn tokens_are_reserved_and_settled_by_what_was_spent() {
    let limits = limits(&[(
        "EDGE__RATES__CLASSES",
        "[{name='c',limits={requests_per_minute=50,tokens_per_minute=100}}]",
    )]);
    let team = caller("a", "c");
    let left = async |spent| {
        let outcome = limits.admit(&team, "talk", TOKENS).await;
        let remaining = header(&outcome, "x-ratelimit-remaining-tokens").unwrap();
        assert_eq!(header(&outcome, "x-ratelimit-limit-tokens").unwrap(), "100");
        assert_eq!(header(&outcome, "x-ratelimit-reset-tokens"), None, "only on a refusal");
        outcome.ticket.unwrap().unwrap().settle(spent);
        remaining.parse::<u64>().unwrap()
    };
    assert_eq!(left(Spent::Tokens(5)).await, 70);
    assert_eq!(left(Spent::Nothing).await, 65);
    assert_eq!(left(Spent::NoTokens).await, 65);
    assert_eq!(left(Spent::Pieces(3)).await, 65);
    assert_eq!(left(Spent::Reserved).await, 52);
    assert_eq!(left(Spent::Tokens(60)).await, 22);
    let refused = limits.admit(&team, "talk", TOKENS).await;
    assert_eq!(header(&refused, "x-ratelimit-remaining-tokens").unwrap(), "0");
    // Five of the six count: one failed through no fault of the caller.
    assert_eq!(header(&refused, "x-ratelimit-remaining-requests").unwrap(), "45");
    assert!(header(&refused, "x-ratelimit-reset-tokens").is_some());
    assert!(refused.ticket.unwrap_err().message.contains("token rate limit"));
}

#[tokio::test]
async fn a_request_larger_than_the_limit_fits_into_an_empty_window() {
    let limits = limits(&[("EDGE__RATES__CLASSES", CLASS)]);
    let huge = Estimate { prompt: 1000, completion: 1000 };
    let outcome = limits.admit(&caller("a", "c"), "talk", huge).await;
    assert_eq!(header(&outcome, "x-ratelimit-remaining-tokens").unwrap(), "0");
    assert!(outcome.ticket.unwrap().is_some());
    let second = limits.admit(&caller("a", "c"), "talk", huge).await;
    second.ticket.unwrap().unwrap().settle(Spent::Nothing);
}

#[tokio::test]
async fn a_callers_own_slots_are_refused_at_once_and_come_back() {
    let limits = limits(&[("EDGE__RATES__CLASSES", CLASS)]);
    let team = caller("a", "slow");
    let first = limits.admit(&team, "talk", TOKENS).await.ticket.unwrap().unwrap();
    let refused = limits.admit(&team, "talk", TOKENS).await;
    assert_eq!(header(&refused, "policy-id").unwrap(), "DeploymentRatelimit-Concurrency");
    assert_eq!(refused.ticket.unwrap_err().retry_after, Some(BUSY_RETRY));
    drop(first);
    assert!(limits.admit(&team, "talk", TOKENS).await.ticket.unwrap().is_some());
}

#[tokio::test]
async fn the_first_override_that_fits_takes_the_place_of_the_limits() {
    let class = "[{name='c',limits={requests_per_minute=1},overrides=[\
        {deployments=['BIG-*'],limits={requests_per_minute=3}},\
        {deployments=['big-one'],limits={requests_per_minute=9}}]}]";
    let limits = limits(&[("EDGE__RATES__CLASSES", class), ("EDGE__RATES__DEFAULT_CLASS", "c")]);
    let anybody = Caller::anybody();
    let shown = async |name| {
        header(&limits.admit(&anybody, name, TOKENS).await, "x-ratelimit-limit-requests").unwrap()
    };
    assert_eq!((shown("big-one").await.as_str(), shown("small").await.as_str()), ("3", "1"));
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_a_slot_of_the_deployment_in_turn_and_not_for_ever() {
    let limits = limits(&[
        ("EDGE__RATES__CLASSES", "[{name='people'},{name='night',priority='batch'}]"),
        ("EDGE__RATES__DEPLOYMENTS", "[{deployments=['talk'],limits={concurrent=1}}]"),
        ("EDGE__RATES__QUEUE_LENGTH", "3"),
    ]);
    let tasks = Tasks::new();
    let (sent, mut order) = tokio::sync::mpsc::unbounded_channel();
    let ask = |name: &'static str, class: &'static str| {
        let (limits, sent) = (limits.clone(), sent.clone());
        AbortOnDropHandle::new(tasks.spawn(async move {
            let outcome = limits.admit(&caller(name, class), "talk", TOKENS).await;
            sent.send((name, outcome.ticket.map(Option::unwrap))).unwrap();
        }))
    };
    let first = limits.admit(&caller("first", "people"), "talk", TOKENS).await;
    let mut held = first.ticket.unwrap().unwrap();
    let mut asked = Vec::new();
    for (name, class) in [("b", "night"), ("p", "people"), ("q", "people")] {
        asked.push(ask(name, class));
        // Each gets as far as its place.
        tokio::task::yield_now().await;
    }
    let full = limits.admit(&caller("late", "people"), "talk", TOKENS).await;
    assert!(full.ticket.unwrap_err().message.contains("concurrent request limit"));
    for expected in ["p", "q", "b"] {
        assert!(order.recv().now_or_never().is_none());
        drop(held);
        let (name, ticket) = order.recv().await.unwrap();
        assert_eq!(name, expected);
        held = ticket.unwrap();
    }
    let last = ask("never", "people");
    let (name, ticket) = order.recv().await.unwrap();
    assert_eq!((name, ticket.unwrap_err().code), ("never", ErrorCode::RateLimited));
    drop((held, asked, last));
}

#[tokio::test]
async fn a_redis_that_is_gone_means_what_configuration_says() {
    for (policy, admitted, code) in
        [("local", 2, Some(429)), ("allow", 10, None), ("refuse", 0, Some(503))]
    {
        let limits = limits(&[
            ("EDGE__RATES__CLASSES", CLASS),
            // Nothing listens on the port of discard.
            ("EDGE__STATE__REDIS_URL", "redis://127.0.0.1:9"),
            ("EDGE__RATES__WHEN_UNAVAILABLE", policy),
        ]);
        let (mut count, mut last) = (0, None);
        for _ in 0..10 {
            match limits.admit(&caller("a", "c"), "talk", TOKENS).await.ticket {
                Ok(_ticket) if policy == "local" => {
                    _ticket.unwrap().settle(Spent::Reserved);
                    count += 1;
                }
                Ok(_ticket) => count += 1,
                Err(fault) => last = Some(fault.code.http()),
            }
        }
        assert_eq!((count, last), (admitted, code), "{policy}");
    }
}

#[test]
fn mistakes_are_named() {
    let wrong = |name: &str, value: &str| {
        let env = vec![(name.to_owned(), value.to_owned())];
        let loaded = load::<Config>("edge", crate::DEFAULTS, &Sources { file: None, env });
        loaded.unwrap_err().to_string()
    };
    let zero = "[{name='a',limits={requests_per_minute=0}},{name='a'}]";
    let text = wrong("EDGE__RATES__CLASSES", zero);
    assert!(text.contains("rates.classes[0].limits.requests_per_minute"), "{text}");
    assert!(text.contains("named twice"), "{text}");
    let text = wrong("EDGE__RATES__DEFAULT_CLASS", "nope");
    assert!(text.contains("edge.rates.default_class") && text.contains("nope"), "{text}");
    let text = wrong("EDGE__RATES__DEPLOYMENTS", "[{deployments=[],limits={}}]");
    assert!(text.contains("at least one deployment"), "{text}");
}
