//! TLS of a door and of the connections to it: certificates and keys out of PEM files, checked, and read again when they change.
//!
//! One home for the edge's own port and for what goes between the services, with rustls and ring. A door asks for a certificate
//! of the client where `client_ca_file` is set. The invariant: what is in force has been checked; files that turn bad change
//! nothing but a line of log.

mod files;

use crate::watch::Watched;
use crate::{Problems, Tasks};
use arc_swap::ArcSwap;
use files::Found;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use serde::Deserialize;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// What a door speaks above TLS, in the order of its preference (ALPN).
pub const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// The same where only gRPC is spoken.
pub const GRPC: [&[u8]; 1] = [b"h2"];

/// TLS of a door. Without a certificate it has none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTlsConfig {
    /// PEM: the certificate, then those between it and the root; empty means no TLS.
    pub certificate_file: String,
    /// PEM: its private key.
    pub key_file: String,
    /// PEM: who signs the certificates that clients must show; empty asks for none.
    pub client_ca_file: String,
}

/// TLS towards a door.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTlsConfig {
    /// PEM: who signs the certificates of doors; empty means that no door has TLS.
    pub ca_file: String,
    /// PEM: what is shown to a door that asks; empty shows nothing.
    pub certificate_file: String,
    /// PEM: its private key.
    pub key_file: String,
    /// The name that the certificate of a door must have; empty means the host of its URL.
    pub server_name: String,
}

impl ServerTlsConfig {
    /// No TLS.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            certificate_file: String::new(),
            key_file: String::new(),
            client_ca_file: String::new(),
        }
    }

    /// Whether the door has TLS.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        !self.certificate_file.is_empty()
    }

    /// Notes options under `option` that contradict each other.
    pub fn check(&self, option: &str, problems: &mut Problems) {
        pair(option, &self.certificate_file, &self.key_file, problems);
        if !self.client_ca_file.is_empty() && self.certificate_file.is_empty() {
            let message = "is set, but there is no TLS without `certificate_file` and `key_file`";
            problems.add(&format!("{option}.client_ca_file"), message);
        }
    }

    /// Notes files that cannot be used.
    pub fn check_files(&self, option: &str, problems: &mut Problems) {
        let mut found = Found::new(option, problems);
        let _unused = self.load(&HTTP, &mut found);
    }

    fn paths(&self) -> [PathBuf; 3] {
        [&self.certificate_file, &self.key_file, &self.client_ca_file].map(PathBuf::from)
    }

    /// None where something is wrong, which `found` then has.
    fn load(&self, protocols: &[&[u8]], found: &mut Found<'_>) -> Option<ServerConfig> {
        let provider = provider();
        let identity = files::identity(&self.certificate_file, &self.key_file, &provider, found);
        let clients = match self.client_ca_file.as_str() {
            "" => Some(WebPkiClientVerifier::no_client_auth()),
            file => files::roots("client_ca_file", file, found).and_then(|roots| {
                let roots = Arc::new(roots);
                let built =
                    WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
                found.kept("client_ca_file", built.build())
            }),
        };
        let (identity, clients) = identity.zip(clients)?;
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = found.kept("certificate_file", builder)?;
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(identity));
        let mut config = builder.with_client_cert_verifier(clients).with_cert_resolver(resolver);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Some(config)
    }
}

impl ClientTlsConfig {
    /// Whether doors have TLS.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        !self.ca_file.is_empty()
    }

    /// Notes options under `option` that contradict each other.
    pub fn check(&self, option: &str, problems: &mut Problems) {
        pair(option, &self.certificate_file, &self.key_file, problems);
        if !self.certificate_file.is_empty() && self.ca_file.is_empty() {
            let message = "is set, but there is no TLS without `ca_file`";
            problems.add(&format!("{option}.certificate_file"), message);
        }
        if !self.server_name.is_empty() && ServerName::try_from(self.server_name.as_str()).is_err()
        {
            let message = "must be the name of a host, such as `koine-services`";
            problems.add(&format!("{option}.server_name"), message);
        }
    }

    /// Notes files that cannot be used.
    pub fn check_files(&self, option: &str, problems: &mut Problems) {
        if self.is_on() {
            let mut found = Found::new(option, problems);
            let _unused = self.load(&mut found);
        }
    }

    fn paths(&self) -> [PathBuf; 3] {
        [&self.ca_file, &self.certificate_file, &self.key_file].map(PathBuf::from)
    }

    /// None where something is wrong, which `found` then has.
    fn load(&self, found: &mut Found<'_>) -> Option<ClientConfig> {
        let provider = provider();
        let roots = files::roots("ca_file", &self.ca_file, found);
        let shown = match self.certificate_file.as_str() {
            "" => Some(None),
            file => files::identity(file, &self.key_file, &provider, found).map(Some),
        };
        let (roots, shown) = roots.zip(shown)?;
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = found.kept("ca_file", builder)?.with_root_certificates(roots);
        let mut config = match shown {
            Some(identity) => {
                let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(identity));
                builder.with_client_cert_resolver(resolver)
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = GRPC.iter().map(|name| name.to_vec()).collect();
        Some(config)
    }
}

/// Notes a certificate without a key, or a key without a certificate.
fn pair(option: &str, certificate: &str, key: &str, problems: &mut Problems) {
    match (certificate.is_empty(), key.is_empty()) {
        (false, true) => {
            let message = "is empty; name the file with the private key of `certificate_file`";
            problems.add(&format!("{option}.key_file"), message);
        }
        (true, false) => {
            let message = "is empty; name the file with the certificate of `key_file`";
            problems.add(&format!("{option}.certificate_file"), message);
        }
        (true, true) | (false, false) => {}
    }
}

/// Notes what is wrong with the PEM file `named.1` of the option `section`.`named.0`, which says who is trusted.
pub(crate) fn check_roots(section: &str, named: (&str, &str), problems: &mut Problems) {
    let mut found = Found::new(section, problems);
    let _unused = files::roots(named.0, named.1, &mut found);
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Makes TLS of connections that come in; clones share everything.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ArcSwap<ServerConfig>>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// The door of `config`, an option of `section` called `option`; none where it has no TLS. Looks at its files every `every`
    /// until `tasks` stop.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn build(
        (section, option): (&'static str, &'static str),
        config: &ServerTlsConfig,
        protocols: &'static [&'static [u8]],
        (every, tasks): (Duration, &Tasks),
    ) -> Result<Option<Self>, Problems> {
        if !config.is_on() {
            return Ok(None);
        }
        // Before they are read, so that no change in between is missed.
        let watched = Watched::new(config.paths());
        let load = {
            let config = config.clone();
            move || files::all(section, option, |found| config.load(protocols, found))
        };
        let current = Arc::new(ArcSwap::from_pointee(load()?));
        let weak = Arc::downgrade(&current);
        watched.follow(every, tasks, move || {
            let Some(current) = weak.upgrade() else { return false };
            replace(&current, load());
            true
        });
        Ok(Some(Self { config: current }))
    }

    /// The handshake. It takes as long as the client lets it: bound it.
    ///
    /// # Errors
    /// When the client does not speak TLS, or shows no certificate that is asked for.
    pub async fn accept<S>(&self, stream: S) -> io::Result<server::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }
}

/// Makes TLS of connections that go out; clones share everything.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ArcSwap<ClientConfig>>,
    server_name: Option<ServerName<'static>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Connector {
    /// What `config` says, an option of `section` called `option`; none where no door has TLS. Looks at its files every `every`
    /// until `tasks` stop.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn build(
        (section, option): (&'static str, &'static str),
        config: &ClientTlsConfig,
        (every, tasks): (Duration, &Tasks),
    ) -> Result<Option<Self>, Problems> {
        if !config.is_on() {
            return Ok(None);
        }
        let server_name = ServerName::try_from(config.server_name.clone()).ok();
        let watched = Watched::new(config.paths());
        let load = {
            let config = config.clone();
            move || files::all(section, option, |found| config.load(found))
        };
        let current = Arc::new(ArcSwap::from_pointee(load()?));
        let weak = Arc::downgrade(&current);
        watched.follow(every, tasks, move || {
            let Some(current) = weak.upgrade() else { return false };
            replace(&current, load());
            true
        });
        Ok(Some(Self { config: current, server_name }))
    }

    /// The same with files that are read once.
    ///
    /// # Errors
    /// As `build`.
    pub(crate) fn once(
        (section, option): (&str, &str),
        config: &ClientTlsConfig,
    ) -> Result<Option<Self>, Problems> {
        if !config.is_on() {
            return Ok(None);
        }
        let server_name = ServerName::try_from(config.server_name.clone()).ok();
        let loaded = files::all(section, option, |found| config.load(found))?;
        Ok(Some(Self { config: Arc::new(ArcSwap::from_pointee(loaded)), server_name }))
    }

    /// The handshake with a door at `host`, unless all doors have one name.
    ///
    /// # Errors
    /// When the door shows no certificate of that name by the right hand.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        TlsConnector::from(self.config.load_full()).connect(name, stream).await
    }
}

fn replace<T>(current: &ArcSwap<T>, loaded: Result<T, Problems>) {
    match loaded {
        Ok(config) => {
            current.store(Arc::new(config));
            tracing::info!("certificates were read again");
        }
        Err(problems) => {
            let problems = problems.in_one_line();
            tracing::warn!(problems, "certificates were not read again; those of before hold");
        }
    }
}

#[cfg(test)]
mod tests;
