//! Doors and passes that fit, and that do not; health and reflection stand for the service.

use super::*;
use crate::Secret;
use crate::tls::{ClientTlsConfig, ServerTlsConfig};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

const HEALTH: &str = "grpc.health.v1.Health";
const ONE: &str = "one-token-of-many-characters";
const OTHER: &str = "other-token-of-many-characters";

/// A service behind `door`; its port.
async fn service(door: &DoorConfig, tasks: &Tasks) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let door = Door::build("chat", door, tasks).unwrap();
    let served = Served {
        names: &["test"],
        descriptors: tonic_health::pb::FILE_DESCRIPTOR_SET,
        routes: Routes::default(),
    };
    let own = tasks.clone();
    tasks.spawn(async move { serve(served, door, listener, &own).await.unwrap() });
    port
}

fn caller(url: String, doors: &DoorsConfig, tasks: &Tasks) -> Client {
    let pass = Pass::build("edge", doors, tasks).unwrap();
    client("chat", &ClientConfig::to(vec![url]), &pass, tasks).unwrap()
}

async fn health(client: &Client) -> Result<(), Code> {
    let request = HealthCheckRequest { service: "test".to_owned() };
    let answer = HealthClient::new(client.clone()).check(request).await;
    answer.map(|_| ()).map_err(|status| status.code())
}

/// A call like any other.
async fn call(client: &Client) -> Result<(), Code> {
    let requests = futures::stream::iter([ServerReflectionRequest::default()]);
    let answer = ServerReflectionClient::new(client.clone()).server_reflection_info(requests).await;
    answer.map(|_| ()).map_err(|status| status.code())
}

#[tokio::test]
async fn a_door_with_a_token_opens_for_whoever_shows_it_and_for_probes() {
    let tasks = Tasks::new();
    let port = service(&DoorConfig::with(Secret::new(ONE)), &tasks).await;
    let with = |token: &str| {
        caller(format!("http://127.0.0.1:{port}"), &DoorsConfig::with(Secret::new(token)), &tasks)
    };
    assert_eq!(call(&with(ONE)).await, Ok(()));
    assert_eq!(call(&with("")).await, Err(Code::Unauthenticated));
    assert_eq!(call(&with(OTHER)).await, Err(Code::Unauthenticated));
    assert_eq!(health(&with("")).await, Ok(()));
    tasks.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_token_is_replaced_without_a_refusal() {
    let (tasks, dir) = (Tasks::new(), tempfile::tempdir().unwrap());
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut door = DoorConfig { token_file: file("door", ONE), ..DoorConfig::open() };
    let mut doors =
        DoorsConfig { token_file: file("pass", ONE), ..DoorsConfig::with(Secret::new("")) };
    (door.reload_ms, doors.reload_ms) = (2, 2);
    let port = service(&door, &tasks).await;
    let pass = Pass::build("edge", &doors, &tasks).unwrap();
    let config = ClientConfig::to(vec![format!("http://127.0.0.1:{port}")]);
    let edge = client("chat", &config, &pass, &tasks).unwrap();
    let new = DoorsConfig::with(Secret::new(OTHER));
    let next = caller(format!("http://127.0.0.1:{port}"), &new, &tasks);
    assert_eq!((call(&edge).await, call(&next).await), (Ok(()), Err(Code::Unauthenticated)));
    file("door", &format!("{ONE}\n{OTHER}\n"));
    let taken = async { while call(&next).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), taken).await.unwrap();
    assert_eq!(call(&edge).await, Ok(()), "the old one is taken still");
    file("pass", &format!("{OTHER}\n"));
    let shown = async {
        while pass.metadata().unwrap().to_str().unwrap() != format!("Bearer {OTHER}") {
            assert_eq!(call(&edge).await, Ok(()));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), shown).await.unwrap();
    // An empty file changes nothing.
    file("door", "\n");
    for _ in 0..20 {
        assert_eq!(call(&edge).await, Ok(()));
        tokio::time::timeout(Duration::from_millis(2), std::future::pending::<()>())
            .await
            .unwrap_err();
    }
    tasks.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn mutual_tls_lets_in_whom_the_authority_knows_by_name_and_by_address() {
    let (tasks, dir) = (Tasks::new(), tempfile::tempdir().unwrap());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
    std::fs::write(path("ca"), authority.pem()).unwrap();
    for (name, host) in [("chat", "localhost"), ("edge", "edge")] {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([host.to_owned()]).unwrap();
        std::fs::write(path(name), params.signed_by(&key, &authority).unwrap().pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let mut door = DoorConfig::with(Secret::new(ONE));
    door.tls = ServerTlsConfig {
        certificate_file: path("chat"),
        key_file: path("chat.key"),
        client_ca_file: path("ca"),
    };
    let port = service(&door, &tasks).await;
    let mut doors = DoorsConfig::with(Secret::new(ONE));
    doors.tls = ClientTlsConfig {
        ca_file: path("ca"),
        certificate_file: path("edge"),
        key_file: path("edge.key"),
        server_name: String::new(),
    };
    // By name: every address behind it must show that name.
    let edge = caller(format!("https://localhost:{port}"), &doors, &tasks);
    assert_eq!((health(&edge).await, call(&edge).await), (Ok(()), Ok(())));
    let plain = caller(format!("http://localhost:{port}"), &doors, &tasks);
    assert!(health(&plain).await.is_err(), "a door with TLS takes nothing else");
    let by_address = caller(format!("https://127.0.0.1:{port}"), &doors, &tasks);
    assert_eq!(health(&by_address).await, Err(Code::Unavailable), "the certificate has no address");
    doors.tls.server_name = "localhost".to_owned();
    let named = caller(format!("https://127.0.0.1:{port}"), &doors, &tasks);
    assert_eq!(call(&named).await, Ok(()));
    (doors.tls.certificate_file, doors.tls.key_file) = (String::new(), String::new());
    let nobody = caller(format!("https://127.0.0.1:{port}"), &doors, &tasks);
    assert!(health(&nobody).await.is_err(), "no certificate is shown");
    // The same door as a collector of traces: `otlp_tls` goes by the same files.
    doors.tls.certificate_file = path("edge");
    doors.tls.key_file = path("edge.key");
    let tls = crate::tls::Connector::once(("edge", "tls"), &doors.tls).unwrap().unwrap();
    let channel = secure_channel(&format!("https://127.0.0.1:{port}"), (tls, "tls")).unwrap();
    let request = HealthCheckRequest { service: "test".to_owned() };
    HealthClient::new(channel).check(request).await.unwrap();
    tasks.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn reflection_tells_both_versions_of_its_protocol_the_same() {
    let tasks = Tasks::new();
    let port = service(&DoorConfig::open(), &tasks).await;
    let client =
        caller(format!("http://127.0.0.1:{port}"), &DoorsConfig::with(Secret::new("")), &tasks);
    let new = {
        use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
        let message_request = Some(MessageRequest::FileContainingSymbol(HEALTH.to_owned()));
        let request = ServerReflectionRequest { message_request, ..Default::default() };
        let asked = futures::stream::iter([request]);
        let mut client = ServerReflectionClient::new(client.clone());
        let answers = client.server_reflection_info(asked);
        let answer = answers.await.unwrap().into_inner().message().await.unwrap();
        format!("{:?}", answer.unwrap().message_response.unwrap())
    };
    let old = {
        use tonic_reflection::pb::v1alpha as pb;
        use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
        let message_request = Some(MessageRequest::FileContainingSymbol(HEALTH.to_owned()));
        let request = pb::ServerReflectionRequest { message_request, ..Default::default() };
        let asked = futures::stream::iter([request]);
        let mut client = pb::server_reflection_client::ServerReflectionClient::new(client.clone());
        let answers = client.server_reflection_info(asked);
        let answer = answers.await.unwrap().into_inner().message().await.unwrap();
        format!("{:?}", answer.unwrap().message_response.unwrap())
    };
    assert!(new.starts_with("FileDescriptorResponse"), "{new}");
    assert_eq!(new, old);
    tasks.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn who_leaves_serves_nothing_by_any_name_and_ends_under_those_who_watch() {
    let tasks = Tasks::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let door = Door::build("chat", &DoorConfig::open(), &tasks).unwrap();
    let descriptors = tonic_health::pb::FILE_DESCRIPTOR_SET;
    let served = Served { names: &["one", "two"], descriptors, routes: Routes::default() };
    let served = tasks.spawn({
        let tasks = tasks.clone();
        async move { serve(served, door, listener, &tasks).await }
    });
    let client =
        caller(format!("http://127.0.0.1:{port}"), &DoorsConfig::with(Secret::new("")), &tasks);
    let mut watched = Vec::new();
    for name in ["", "one", "two"] {
        let request = HealthCheckRequest { service: name.to_owned() };
        let answers = HealthClient::new(client.clone()).watch(request).await.unwrap();
        let mut answers = answers.into_inner();
        let first = answers.message().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving, "`{name}`");
        watched.push(answers);
    }
    tasks.leave(Duration::ZERO).await;
    for answers in &mut watched {
        let next = answers.message().await.unwrap().unwrap();
        assert_eq!(next.status(), ServingStatus::NotServing);
    }
    assert_eq!(call(&client).await, Ok(()), "new work is taken still");
    tasks.stop(Duration::ZERO).await;
    served.await.unwrap().unwrap();
}

#[test]
fn urls_and_tokens_that_cannot_be_are_named_with_the_remedy() {
    let mut problems = Problems::of("edge");
    let mut doors = DoorsConfig::with(Secret::new("short"));
    doors.token_file = "/nowhere/token".to_owned();
    doors.check(&mut problems);
    doors.check_files(&mut problems);
    let urls = [
        "http://chat:50051",
        "chat:50051",
        "ftp://chat",
        "https://chat",
        "http://a:hush@b",
        "http://a/b",
    ];
    let config = ClientConfig::to(urls.map(str::to_owned).to_vec());
    config.check("chat", &doors, &mut problems);
    let text = problems.to_string();
    for expected in [
        "`edge.doors.token`: must be 16 or more",
        "`edge.doors.token_file`: cannot read `/nowhere/token`",
        "`edge.chat.endpoints[1]`: `chat:50051` is not a URL like",
        "`edge.chat.endpoints[2]`: `ftp://chat` is not",
        "`edge.chat.endpoints[3]`: begins with https; say in `edge.doors.tls.ca_file`",
        "`edge.chat.endpoints[4]`: it is not a URL",
        "`edge.chat.endpoints[5]`: `http://a/b` is not",
    ] {
        assert!(text.contains(expected), "{expected} is missing in: {text}");
    }
    assert!(
        !text.contains("hush") && !text.contains("endpoints[0]") && !text.contains("`short`"),
        "{text}"
    );
}
