//! Certificates that are good, and every way in which they are not.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

/// A hand that signs, and files with what it signed.
struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A certificate for `host`, and its key, as `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str, host: &str, last_year: Option<i32>) {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        if let Some(year) = last_year {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(year, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let write = |ending: &str, text: String| {
            std::fs::write(self.dir.path().join(format!("{name}.{ending}")), text).unwrap();
        };
        write("pem", certificate.pem());
        write("key", key.serialize_pem());
    }

    fn door(&self, name: &str, client_ca: &str) -> ServerTlsConfig {
        ServerTlsConfig {
            certificate_file: self.file(&format!("{name}.pem")),
            key_file: self.file(&format!("{name}.key")),
            client_ca_file: if client_ca.is_empty() { String::new() } else { self.file(client_ca) },
        }
    }

    fn caller(&self, name: &str) -> ClientTlsConfig {
        let shown = |ending: &str| match name {
            "" => String::new(),
            name => self.file(&format!("{name}.{ending}")),
        };
        ClientTlsConfig {
            ca_file: self.file("ca.pem"),
            certificate_file: shown("pem"),
            key_file: shown("key"),
            server_name: String::new(),
        }
    }
}

const OFTEN: Duration = Duration::from_millis(2);

fn acceptor(config: &ServerTlsConfig, tasks: &Tasks) -> Acceptor {
    Acceptor::build(("edge", "tls"), config, &HTTP, (OFTEN, tasks)).unwrap().unwrap()
}

fn connector(config: &ClientTlsConfig, tasks: &Tasks) -> Connector {
    Connector::build(("edge", "doors.tls"), config, (OFTEN, tasks)).unwrap().unwrap()
}

/// Whether a byte passes from a caller to a door and back.
async fn meet(acceptor: &Acceptor, connector: &Connector) -> io::Result<()> {
    let (near, far) = duplex(16 * 1024);
    let door = async {
        let mut stream = acceptor.accept(far).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.flush().await
    };
    let caller = async {
        let mut stream = connector.connect("koine.test", near).await?;
        stream.write_u8(7).await?;
        stream.flush().await?;
        assert_eq!(stream.read_u8().await?, 7);
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Ok(())
    };
    tokio::try_join!(door, caller).map(|_| ())
}

#[tokio::test]
async fn a_door_is_entered_by_whom_its_certificates_allow() {
    let (authority, stranger, tasks) = (Authority::new(), Authority::new(), Tasks::new());
    authority.issue("door", "koine.test", None);
    authority.issue("edge", "edge", None);
    stranger.issue("edge", "edge", None);
    stranger.issue("door", "koine.test", None);
    let plain = connector(&authority.caller(""), &tasks);
    meet(&acceptor(&authority.door("door", ""), &tasks), &plain).await.unwrap();
    let strange = acceptor(&stranger.door("door", ""), &tasks);
    assert!(meet(&strange, &plain).await.is_err(), "signed by somebody else");
    let strict = acceptor(&authority.door("door", "ca.pem"), &tasks);
    assert!(meet(&strict, &plain).await.is_err(), "no certificate is shown");
    let known = connector(&authority.caller("edge"), &tasks);
    meet(&strict, &known).await.unwrap();
    let shown = ClientTlsConfig { ca_file: authority.file("ca.pem"), ..stranger.caller("edge") };
    assert!(meet(&strict, &connector(&shown, &tasks)).await.is_err(), "shown by a stranger");
    tasks.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    let (authority, tasks) = (Authority::new(), Tasks::new());
    authority.issue("door", "elsewhere.test", None);
    let acceptor = acceptor(&authority.door("door", ""), &tasks);
    let connector = connector(&authority.caller(""), &tasks);
    assert!(meet(&acceptor, &connector).await.is_err(), "another name");
    authority.issue("door", "koine.test", None);
    let renewed = async { while meet(&acceptor, &connector).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), renewed).await.unwrap();
    std::fs::write(authority.file("door.pem"), "garbage").unwrap();
    for _ in 0..20 {
        tokio::time::timeout(OFTEN, std::future::pending::<()>()).await.unwrap_err();
        meet(&acceptor, &connector).await.unwrap();
    }
    tasks.stop(Duration::ZERO).await;
}

fn problems(config: &ServerTlsConfig) -> String {
    let mut problems = Problems::of("edge");
    config.check("tls", &mut problems);
    if config.is_on() && problems.is_empty() {
        config.check_files("tls", &mut problems);
    }
    if problems.is_empty() { String::new() } else { problems.to_string() }
}

#[test]
fn every_mistake_is_named_with_its_option_and_its_remedy() {
    let authority = Authority::new();
    for (name, last_year) in [("good", None), ("other", None), ("old", Some(2002))] {
        authority.issue(name, "koine.test", last_year);
    }
    let good = authority.door("good", "ca.pem");
    assert_eq!(problems(&good), "");
    std::fs::write(authority.file("empty.pem"), "").unwrap();
    let with = |change: &dyn Fn(&mut ServerTlsConfig)| {
        let mut config = good.clone();
        change(&mut config);
        problems(&config)
    };
    for (text, expected) in [
        (
            problems(&authority.door("old", "")),
            ["`edge.tls.certificate_file`", "expired", "put a new one"],
        ),
        (
            problems(&authority.door("none", "")),
            ["`edge.tls.certificate_file`", "cannot read", "`edge.tls.key_file`"],
        ),
        (
            with(&|c| c.key_file = authority.file("other.key")),
            ["`edge.tls.key_file`", "not the key of", "renewed"],
        ),
        (
            with(&|c| c.key_file = authority.file("good.pem")),
            ["`edge.tls.key_file`", "private key", "PEM"],
        ),
        (with(&|c| c.key_file.clear()), ["`edge.tls.key_file`", "is empty", "name the file"]),
        (
            with(&|c| c.client_ca_file = authority.file("empty.pem")),
            ["`edge.tls.client_ca_file`", "no certificate", "PEM"],
        ),
        (
            with(&|c| c.certificate_file.clear()),
            ["`edge.tls.certificate_file`", "client_ca_file", "no TLS without"],
        ),
    ] {
        for expected in expected {
            assert!(text.contains(expected), "{expected} is missing in: {text}");
        }
    }
    assert!(Path::new(&authority.file("good.pem")).exists());
}
