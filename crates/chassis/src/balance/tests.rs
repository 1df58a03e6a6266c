//! Calls meet replicas that are gone, that break and that refuse; health is the service that is called.

use super::*;
use crate::tasks::Tasks;
use futures::{StreamExt as _, stream};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckResponse, health_check_response::ServingStatus};

/// Answers by its own rule, and tells who asked.
#[derive(Debug)]
struct Server {
    refuses: Option<Status>,
    asked: tokio::sync::mpsc::UnboundedSender<()>,
}

#[tonic::async_trait]
impl Health for Server {
    async fn check(
        &self,
        _request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        self.asked.send(()).unwrap();
        if let Some(status) = &self.refuses {
            return Err(status.clone());
        }
        let status = ServingStatus::Serving.into();
        Ok(tonic::Response::new(HealthCheckResponse { status }))
    }

    type WatchStream = stream::BoxStream<'static, Result<HealthCheckResponse, Status>>;

    /// One answer, and then silence.
    async fn watch(
        &self,
        _request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let status = ServingStatus::Serving.into();
        let first = stream::iter([Ok(HealthCheckResponse { status })]);
        Ok(tonic::Response::new(first.chain(stream::pending()).boxed()))
    }
}

/// A server on a port of its own: how it is reached, and its calls.
async fn server(tasks: &Tasks, refuses: Option<Status>) -> (Replica, UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let replica = replica(listener.local_addr().unwrap());
    let (asked, calls) = unbounded_channel();
    let served = tonic::transport::Server::builder()
        .add_service(HealthServer::new(Server { refuses, asked }))
        .serve_with_incoming(TcpIncoming::from(listener));
    tasks.spawn(served);
    (replica, calls)
}

fn replica(address: std::net::SocketAddr) -> Replica {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    Replica::new(address.to_string(), endpoint.connect_lazy())
}

/// A port at which nobody listens.
async fn gone() -> Replica {
    replica(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap())
}

/// Takes a request and dies without an answer.
async fn dying(tasks: &Tasks) -> Replica {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let replica = replica(listener.local_addr().unwrap());
    tasks.spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _read = connection.read(&mut [0; 1024]).await;
        }
    });
    replica
}

async fn ask(balanced: &Balanced) -> Result<(), Code> {
    let answer = HealthClient::new(balanced.clone()).check(HealthCheckRequest::default()).await;
    answer.map(|_| ()).map_err(|status| status.code())
}

#[tokio::test]
async fn a_replica_that_is_gone_or_dies_or_refuses_loses_no_call() {
    let tasks = Tasks::new();
    for bad in [
        gone().await,
        dying(&tasks).await,
        server(&tasks, Some(Status::unavailable(DRAINING))).await.0,
    ] {
        let (good, _calls) = server(&tasks, None).await;
        let balanced = Balanced::new("test", vec![bad, good]);
        for _ in 0..40 {
            assert_eq!(ask(&balanced).await, Ok(()));
        }
    }
}

#[tokio::test]
async fn all_replicas_get_calls_and_a_new_one_does_at_once() {
    let tasks = Tasks::new();
    let (one, mut calls_of_one) = server(&tasks, None).await;
    let (two, mut calls_of_two) = server(&tasks, None).await;
    let name = one.name.clone();
    let balanced = Balanced::new("test", vec![one]);
    ask(&balanced).await.unwrap();
    balanced.set(vec![two, replica(name.parse().unwrap())]);
    for _ in 0..64 {
        ask(&balanced).await.unwrap();
    }
    let count =
        |calls: &mut UnboundedReceiver<()>| std::iter::from_fn(|| calls.try_recv().ok()).count();
    // Each of 64 calls goes to either by lot: fewer than 8 at one of them come once in 10^10 runs. The second was asked once more,
    // whether it is there.
    let (one, two) = (count(&mut calls_of_one), count(&mut calls_of_two));
    assert_eq!(one + two, 66);
    assert!(one > 8 && two > 8, "{one} and {two}");
}

#[tokio::test]
async fn the_replica_with_fewer_calls_is_asked() {
    let tasks = Tasks::new();
    let (one, two) = (server(&tasks, None).await.0, server(&tasks, None).await.0);
    let idle = two.name.clone();
    let balanced = Balanced::new("test", vec![one, two]);
    let busy = balanced.shared.all().into_iter().find(|r| r.name != idle).unwrap();
    let _calls: Vec<Pending> = (0..3).map(|_| Pending::at(&busy)).collect();
    let picks: Vec<String> =
        (0..64).filter_map(|_| balanced.shared.pick(&[])).map(|r| r.name.clone()).collect();
    // Both lots fall on the busy one in a quarter of the draws.
    let idle_picks = picks.iter().filter(|name| **name == idle).count();
    assert!(idle_picks > 32, "{idle_picks} of 64");
}

/// A way to `target` that ends, with whatever passes through it, when the handle is aborted.
async fn way(
    tasks: &Tasks,
    target: std::net::SocketAddr,
) -> (Replica, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let replica = replica(listener.local_addr().unwrap());
    let passing = tasks.spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
        let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    (replica, passing)
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_unavailable_and_its_replica_rests() {
    let tasks = Tasks::new();
    let (far, _calls) = server(&tasks, None).await;
    let (near, passing) = way(&tasks, far.name.parse().unwrap()).await;
    let balanced = Balanced::new("test", vec![near]);
    let mut client = HealthClient::new(balanced.clone());
    let mut answer = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(answer.message().await.unwrap().is_some());
    passing.abort();
    let status = answer.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(balanced.shared.all()[0].rests(Instant::now()));
}

#[tokio::test]
async fn one_that_drains_is_left_alone_and_costs_no_retries() {
    let tasks = Tasks::new();
    let (leaving, mut refusals) = server(&tasks, Some(Status::unavailable(DRAINING))).await;
    let (good, _calls) = server(&tasks, None).await;
    let balanced = Balanced::new("test", vec![leaving, good]);
    // It was there until now.
    balanced.shared.all()[0].succeeded();
    while balanced.shared.budget.withdraw() {}
    for _ in 0..200 {
        assert_eq!(ask(&balanced).await, Ok(()));
    }
    let refused = std::iter::from_fn(|| refusals.try_recv().ok()).count();
    assert!((1..20).contains(&refused), "asked {refused} times of 200");
}

#[tokio::test]
async fn who_says_not_to_ask_again_is_believed() {
    let tasks = Tasks::new();
    let mut status = Status::unavailable("the upstream failed");
    status.metadata_mut().insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
    let (one, mut calls) = server(&tasks, Some(status.clone())).await;
    let (other, mut other_calls) = server(&tasks, Some(status)).await;
    let balanced = Balanced::new("test", vec![one, other]);
    assert_eq!(ask(&balanced).await, Err(Code::Unavailable));
    let asked = [calls.try_recv().is_ok(), other_calls.try_recv().is_ok()];
    assert_eq!(asked.iter().filter(|asked| **asked).count(), 1);
}

#[tokio::test]
async fn one_that_has_its_port_but_does_not_serve_yet_keeps_no_call() {
    let tasks = Tasks::new();
    let loading = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (good, _calls) = server(&tasks, None).await;
    let balanced = Balanced::new("test", vec![replica(loading.local_addr().unwrap()), good]);
    let all = async {
        for _ in 0..40 {
            assert_eq!(ask(&balanced).await, Ok(()));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
}

#[tokio::test]
async fn a_call_whose_own_time_is_over_blames_no_replica() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let balanced = Balanced::new("test", vec![replica(silent.local_addr().unwrap())]);
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_millis(5));
    let status = HealthClient::new(balanced.clone()).check(request).await.unwrap_err();
    assert_ne!(status.code(), Code::Unavailable, "{status}");
    assert!(!balanced.shared.all()[0].rests(Instant::now()));
}

#[tokio::test]
async fn one_that_failed_rests_and_longer_each_time() {
    tokio::time::pause();
    let (one, two) = (gone().await, gone().await);
    let balanced = Balanced::new("test", vec![one, two]);
    let ill = Arc::clone(&balanced.shared.all()[0]);
    ill.failed();
    // Calls that were running there all break at once.
    ill.failed();
    tokio::time::advance(FIRST_PAUSE).await;
    assert!(!ill.rests(Instant::now()));
    ill.failed();
    let picked = |n: usize| {
        (0..n).filter(|_| Arc::ptr_eq(&balanced.shared.pick(&[]).unwrap(), &ill)).count()
    };
    assert_eq!(picked(32), 0);
    tokio::time::advance(FIRST_PAUSE).await;
    assert_eq!(picked(32), 0, "the second pause is longer than the first");
    tokio::time::advance(FIRST_PAUSE).await;
    assert!(picked(64) > 0);
}

#[tokio::test]
async fn when_nobody_can_be_reached_the_call_fails_as_unavailable() {
    let balanced = Balanced::new("test", vec![gone().await, gone().await]);
    assert_eq!(ask(&balanced).await, Err(Code::Unavailable));
    assert_eq!(ask(&Balanced::new("test", Vec::new())).await, Err(Code::Unavailable));
}

#[test]
fn what_changes_something_is_known_by_its_name() {
    assert!(changes("/koine.v1.Lists/CreateOrUpdate"));
    assert!(changes("/koine.v1.Lists/DeleteList"));
    assert!(!changes("/koine.v1.Chat/Generate"));
    assert!(!changes("/koine.v1.Chat/ListModels"));
}
