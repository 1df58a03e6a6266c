//! TLS of the edge: both versions of HTTP over it, certificates that are renewed, callers that must show one.

use crate::ask::{B, says};
use e2e::{KEY, TestStack};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Version};
use std::time::Duration;

/// No wait of these tests takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whoever signs, and a directory for what it signed.
pub(crate) struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { dir: tempfile::tempdir().unwrap(), issuer };
        std::fs::write(authority.file("ca.pem"), authority.issuer.pem()).unwrap();
        authority
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// `NAME.pem` and `NAME.key`, a certificate for `host`; both in one text.
    pub(crate) fn issue(&self, name: &str, host: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let (certificate, key) =
            (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem());
        std::fs::write(self.file(&format!("{name}.key")), &key).unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), &certificate).unwrap();
        certificate + &key
    }

    async fn stack(&self, more: &[(&str, &str)]) -> TestStack {
        let (certificate, key) = (self.file("edge.pem"), self.file("edge.key"));
        let options = [
            ("EDGE__TLS__CERTIFICATE_FILE", certificate.as_str()),
            ("EDGE__TLS__KEY_FILE", key.as_str()),
            ("EDGE__SERVICE__RELOAD_MS", "5"),
        ];
        TestStack::start_with(&[&options, more].concat()).await
    }

    /// A client that trusts this authority alone.
    fn client(&self) -> ClientBuilder {
        let root = Certificate::from_pem(self.issuer.pem().as_bytes()).unwrap();
        Client::builder().no_proxy().tls_certs_only([root])
    }
}

async fn chat(stack: &TestStack, client: &Client) -> Result<(u16, Version), reqwest::Error> {
    let request = client.post(stack.url(&format!("/chat/completions?{B}"))).header("api-key", KEY);
    let request = request.header("content-type", "application/json");
    let answer = request.body(says("talk", "hi").to_string()).send().await?;
    Ok((answer.status().as_u16(), answer.version()))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_http_are_spoken_over_tls_and_nothing_else_is() {
    let authority = Authority::new();
    authority.issue("edge", "127.0.0.1");
    let stack = authority.stack(&[]).await;
    let two = authority.client().build().unwrap();
    assert_eq!(chat(&stack, &two).await.unwrap(), (200, Version::HTTP_2));
    let one = authority.client().http1_only().build().unwrap();
    assert_eq!(chat(&stack, &one).await.unwrap(), (200, Version::HTTP_11));
    let plain = one.get(format!("http://{}/info?{B}", stack.address)).send().await;
    assert!(plain.is_err(), "plain HTTP on a port with TLS");
    assert!(chat(&stack, &Authority::new().client().build().unwrap()).await.is_err());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_to_the_next_connection() {
    let authority = Authority::new();
    authority.issue("edge", "elsewhere.test");
    let stack = authority.stack(&[]).await;
    // Each asks over a connection of its own.
    let ask = async || chat(&stack, &authority.client().build().unwrap()).await;
    assert!(ask().await.is_err(), "a certificate of another name");
    authority.issue("edge", "127.0.0.1");
    let renewed = async { while ask().await.is_err() {} };
    tokio::time::timeout(PATIENCE, renewed).await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_shows_a_certificate_where_one_is_asked_for_and_its_key_all_the_same() {
    let authority = Authority::new();
    authority.issue("edge", "127.0.0.1");
    let caller = authority.issue("caller", "caller");
    let ca = authority.file("ca.pem");
    let stack = authority.stack(&[("EDGE__TLS__CLIENT_CA_FILE", &ca)]).await;
    assert!(chat(&stack, &authority.client().build().unwrap()).await.is_err());
    let identity = Identity::from_pem(caller.as_bytes()).unwrap();
    let known = authority.client().identity(identity).build().unwrap();
    assert_eq!(chat(&stack, &known).await.unwrap().0, 200);
    let without = known.get(stack.url(&format!("/info?{B}"))).send().await.unwrap();
    assert_eq!(without.status().as_u16(), 401);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_come_ends_the_connection() {
    use tokio::io::AsyncReadExt as _;
    let authority = Authority::new();
    authority.issue("edge", "127.0.0.1");
    let stack = authority.stack(&[("EDGE__LIMITS__HEADER_TIMEOUT_MS", "50")]).await;
    let mut silent = tokio::net::TcpStream::connect(stack.address).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "the connection is held");
    stack.stop().await;
}
