//! Counters in this process and in Redis: the same answers to the same questions.

use crate::tls::Authority;
use chassis::Secret;
use chassis::state::{
    Change, Counter, Demand, Kind, Local, Settlement, Shared, StateConfig, Taken,
};
use e2e::redis::Redis;
use std::time::{Duration, Instant};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// No wait of these tests takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

fn open(redis: &Redis) -> Shared {
    open_at(redis.url(), String::new())
}

fn open_at(url: String, redis_ca_file: String) -> Shared {
    let config = StateConfig { redis_url: Secret::new(url), redis_ca_file, timeout_ms: 5000 };
    Shared::open(&config).unwrap().unwrap()
}

fn demand(id: &str, counters: &[Counter]) -> Demand {
    Demand { id: id.to_owned(), lease: Duration::from_secs(60), counters: counters.to_vec() }
}

fn rate(key: &str, limit: u64, window: Duration, amount: u64) -> Counter {
    Counter { key: format!("{{t}}:{key}"), limit, kind: Kind::Rate { window, amount } }
}

fn slots(key: &str, limit: u64) -> Counter {
    Counter { key: format!("{{t}}:{key}"), limit, kind: Kind::Slots }
}

/// What does not depend on when it was asked.
fn essence(taken: &Taken) -> (bool, Vec<(u64, bool)>) {
    (taken.admitted, taken.standings.iter().map(|s| (s.used, s.wait.is_zero())).collect())
}

#[tokio::test]
async fn both_places_count_alike() {
    let redis = Redis::start().await;
    let (here, there) = (Local::default(), open(&redis));
    for step in 0_u64..200 {
        // Requests of changing size; now and then one gives back, or turns out to have cost more.
        let id = format!("request-{}", step % 7);
        let counters = [
            rate("requests", 90, DAY, 1),
            rate("tokens", 4000, DAY, 10 + step * 7 % 50),
            slots("slots", 5),
        ];
        let look = Demand { lease: Duration::ZERO, ..demand(&id, &counters) };
        let foreseen = [here.take(&look), there.take(&look).await.unwrap()];
        let ours = here.take(&demand(&id, &counters));
        let theirs = there.take(&demand(&id, &counters)).await.unwrap();
        assert_eq!(essence(&ours), essence(&theirs), "step {step}");
        for foreseen in &foreseen {
            assert_eq!(
                essence(foreseen),
                essence(&ours),
                "step {step}: who only looks takes nothing"
            );
        }
        if !ours.admitted || step % 3 == 0 {
            let delta = i64::try_from(step % 40).unwrap() - 30;
            let settlement = |taken: &Taken| {
                let index = taken.standings[1].window;
                let key = counters[1].key.clone();
                let change = Change::Rate { key, window: DAY, index, delta };
                let slot = Change::Slot { key: counters[2].key.clone() };
                Settlement {
                    id: format!("request-{}", (step + 3) % 7),
                    changes: vec![change, slot],
                }
            };
            here.settle(&settlement(&ours));
            there.settle(&settlement(&theirs)).await.unwrap();
        }
    }
}

/// Takes until it is admitted again; how long that took and how long it was told to wait at first.
async fn refused_until(shared: &Shared, counter: &Counter) -> (Duration, Duration) {
    let began = Instant::now();
    let told = shared.take(&demand("d", std::slice::from_ref(counter))).await.unwrap();
    assert!(!told.admitted);
    while !shared.take(&demand("d", std::slice::from_ref(counter))).await.unwrap().admitted {
        assert!(began.elapsed() < PATIENCE, "never admitted again");
    }
    (began.elapsed(), told.standings[0].wait)
}

#[tokio::test]
async fn the_wait_that_redis_tells_is_the_wait_there_is() {
    let redis = Redis::start().await;
    let shared = open(&redis);
    let window = Duration::from_secs(1);
    // Fits in the next window only; then in the same window, once a part of the one before has faded.
    let all = rate("fade", 100, window, 100);
    assert!(shared.take(&demand("d", std::slice::from_ref(&all))).await.unwrap().admitted);
    for amount in [40, 60] {
        let (took, told) = refused_until(&shared, &rate("fade", 100, window, amount)).await;
        assert!(told <= 2 * window, "{told:?}");
        // A millisecond is the finest that either clock tells.
        assert!(took + Duration::from_millis(2) >= told, "told {told:?}, took {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_take_exactly_the_limit() {
    let redis = Redis::start().await;
    let connections = [open(&redis), open(&redis)];
    let counters = [rate("many", 73, DAY, 1), slots("held", 50)];
    let ask = |i: usize| {
        let (shared, counters) = (&connections[i % 2], &counters);
        async move { shared.take(&demand(&i.to_string(), counters)).await.unwrap().admitted }
    };
    let admitted = futures::future::join_all((0..300).map(ask)).await;
    assert_eq!(admitted.iter().filter(|a| **a).count(), 50);
    for i in 0..50 {
        let id = admitted.iter().enumerate().filter(|(_, a)| **a).nth(i).unwrap().0.to_string();
        let changes = vec![Change::Slot { key: counters[1].key.clone() }];
        connections[0].settle(&Settlement { id, changes }).await.unwrap();
    }
    let admitted = futures::future::join_all((300..600).map(ask)).await;
    assert_eq!(admitted.iter().filter(|a| **a).count(), 23);
}

#[tokio::test]
async fn a_lease_that_ended_frees_its_slot() {
    let redis = Redis::start().await;
    let shared = open(&redis);
    let short = Demand { lease: Duration::from_millis(50), ..demand("dead", &[slots("s", 1)]) };
    assert!(shared.take(&short).await.unwrap().admitted);
    let began = Instant::now();
    while !shared.take(&demand("next", &[slots("s", 1)])).await.unwrap().admitted {
        assert!(began.elapsed() < PATIENCE, "never free again");
    }
    assert!(began.elapsed() >= Duration::from_millis(20));
}

#[tokio::test]
async fn a_connection_that_broke_is_made_again() {
    let mut redis = Redis::start().await;
    let shared = open(&redis);
    let counter = [rate("a", 1, DAY, 1)];
    assert!(shared.take(&demand("d", &counter)).await.unwrap().admitted);
    redis.restart().await;
    // The first call may still find the old connection.
    let again = match shared.take(&demand("d", &counter)).await {
        Ok(taken) => taken,
        Err(_broken) => shared.take(&demand("d", &counter)).await.unwrap(),
    };
    assert!(again.admitted, "a new Redis has counted nothing");
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_shown() {
    let redis = Redis::start().await;
    let shared = open_at(format!("{}?pass=hush", redis.url()), String::new());
    let error = shared.ping().await.unwrap_err().to_string();
    assert!(
        error.contains("refuses the user or the password") && !error.contains("hush"),
        "{error}"
    );
}

#[tokio::test]
async fn a_redis_with_tls_is_believed_where_its_certificate_is_of_the_authority() {
    let authority = Authority::new();
    authority.issue("redis", "127.0.0.1");
    let (redis, url) =
        Redis::start_with_tls(&authority.file("redis.pem"), &authority.file("redis.key")).await;
    let shared = open_at(url.clone(), authority.file("ca.pem"));
    assert!(shared.take(&demand("d", &[rate("a", 1, DAY, 1)])).await.unwrap().admitted);
    let same = open(&redis).take(&demand("d", &[rate("a", 1, DAY, 1)])).await.unwrap();
    assert!(!same.admitted, "it is the same Redis");
    for other in [Authority::new().file("ca.pem"), String::new()] {
        let error = open_at(url.clone(), other).ping().await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
    }
}
