//! PEM files: read, checked one by one, and every mistake said with its option and its remedy.
//!
//! Separate from the TLS that is made of them. rustls looks at the dates of a peer's certificate and never at those of one's
//! own, so that is done here. No message holds anything out of a key.

use crate::Problems;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use std::fmt;
use webpki::{EndEntityCert, KeyUsage};

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// Problems of the options under one name.
pub(super) struct Found<'a> {
    option: &'a str,
    problems: &'a mut Problems,
}

impl<'a> Found<'a> {
    pub(super) const fn new(option: &'a str, problems: &'a mut Problems) -> Self {
        Self { option, problems }
    }

    fn add(&mut self, field: &str, message: impl fmt::Display) {
        self.problems.add(&format!("{}.{field}", self.option), message);
    }

    /// The value, or a problem of `field`.
    pub(super) fn kept<T>(&mut self, field: &str, made: Result<T, impl fmt::Display>) -> Option<T> {
        made.map_err(|error| self.add(field, error)).ok()
    }
}

/// What `load` makes of the files under `option` of `section`, or everything that is wrong with them.
pub(super) fn all<T>(
    section: &str,
    option: &str,
    load: impl FnOnce(&mut Found<'_>) -> Option<T>,
) -> Result<T, Problems> {
    let mut problems = Problems::of(section);
    let loaded = load(&mut Found::new(option, &mut problems));
    loaded.ok_or(problems)
}

/// A certificate with its chain and its key.
pub(super) fn identity(
    certificate: &str,
    key: &str,
    provider: &CryptoProvider,
    found: &mut Found<'_>,
) -> Option<CertifiedKey> {
    let chain = certificates("certificate_file", certificate, found);
    let chain = chain.filter(|chain| is_valid(certificate, chain, found));
    let secret = private_key(key, found);
    let (chain, secret) = chain.zip(secret)?;
    match CertifiedKey::from_der(chain, secret, provider) {
        Ok(identity) => Some(identity),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let message = format!(
                "`{key}` is not the key of the certificate in `{certificate}`; both must be renewed together"
            );
            found.add("key_file", message);
            None
        }
        Err(_says_nothing_more) => {
            let message = format!(
                "`{key}` holds a key of a kind that is not known; use RSA, ECDSA (P-256, P-384) or Ed25519"
            );
            found.add("key_file", message);
            None
        }
    }
}

/// The certificates of whoever is trusted.
pub(super) fn roots(field: &str, path: &str, found: &mut Found<'_>) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(field, path, found)? {
        if roots.add(certificate).is_err() {
            found
                .add(field, format!("`{path}` holds something that is not a certificate of X.509"));
            return None;
        }
    }
    Some(roots)
}

fn certificates(
    field: &str,
    path: &str,
    found: &mut Found<'_>,
) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = read(field, path, found)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = parsed.ok().filter(|chain| !chain.is_empty());
    if chain.is_none() {
        let message = format!("`{path}` holds no certificate in PEM (-----BEGIN CERTIFICATE-----)");
        found.add(field, message);
    }
    chain
}

fn private_key(path: &str, found: &mut Found<'_>) -> Option<PrivateKeyDer<'static>> {
    let bytes = read("key_file", path, found)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).ok();
    if key.is_none() {
        let message = format!(
            "`{path}` holds no private key in PEM (-----BEGIN PRIVATE KEY-----) without a passphrase"
        );
        found.add("key_file", message);
    }
    key
}

fn read(field: &str, path: &str, found: &mut Found<'_>) -> Option<Vec<u8>> {
    let read = std::fs::read(path);
    let read = read.map_err(|error| {
        format!("cannot read `{path}`: {error}; is the secret mounted, and readable by this user?")
    });
    found.kept(field, read)
}

/// Whether the first of `chain` may be shown today.
fn is_valid(path: &str, chain: &[CertificateDer<'_>], found: &mut Found<'_>) -> bool {
    let Some(parsed) = chain.first().and_then(|first| EndEntityCert::try_from(first).ok()) else {
        found.add("certificate_file", format!("`{path}` holds no certificate of X.509, version 3"));
        return false;
    };
    let now = UnixTime::now();
    // Without anybody to trust this always fails, but dates are looked at first.
    let outcome = parsed.verify_for_usage(
        rustls::crypto::ring::default_provider().signature_verification_algorithms.all,
        &[],
        &[],
        now,
        KeyUsage::server_auth(),
        None,
        None,
    );
    let message = match outcome {
        Err(webpki::Error::CertExpired { not_after, .. }) => {
            let days = now.as_secs().saturating_sub(not_after.as_secs()) / DAY;
            format!("the certificate in `{path}` expired {days} day(s) ago; put a new one there")
        }
        Err(webpki::Error::CertNotValidYet { not_before, .. }) => {
            let days = not_before.as_secs().saturating_sub(now.as_secs()).div_ceil(DAY);
            format!(
                "the certificate in `{path}` is valid only in {days} day(s); is the clock right?"
            )
        }
        Err(_) | Ok(_) => return true,
    };
    found.add("certificate_file", message);
    false
}
