//! Downloads over http, continued where they broke off.
//!
//! Separate from the hub and address sources, which only differ in how they make the address.
//! The invariant: what is in the partial file is a prefix of what the server sent, never longer than the catalog allows.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt as _;

use crate::error::StoreError;
use crate::source::{Failure, Meter, Place};

/// A server that does not answer the handshake for so long is not reachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// A body that gives nothing for so long is broken; the next attempt continues it.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts for one file. Each continues the last, so five survive even a poor line.
const ATTEMPTS: u32 = 5;
/// Attempts when not even a connection comes about: once more for a lost packet, then the next source.
const CONNECT_ATTEMPTS: u32 = 2;
/// Before the second attempt; doubles each time. Tests have no time to lose.
const BACKOFF: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(1) };

/// Why one attempt failed.
enum Broken {
    /// The next attempt may do better.
    Retry(String),
    /// No connection.
    Connect(String),
    /// It will not get better.
    Final(Failure),
}

/// A client for downloads.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client,
}

impl Http {
    /// With the certificates of this system.
    pub(crate) fn new() -> Result<Self, StoreError> {
        // Fails when another crate of this process installed a provider already; that one serves as well.
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("koine/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| StoreError::Client(chain(&e)))?;
        Ok(Self { client })
    }

    /// Collects `url` in the place's partial file, continuing what is there.
    pub(crate) async fn download(
        &self,
        url: &str,
        place: &Place,
        meter: &Meter<'_>,
    ) -> Result<(), Failure> {
        let (mut backoff, mut attempt) = (BACKOFF, 1);
        loop {
            let (cause, most) = match Box::pin(self.attempt(url, place, meter)).await {
                Ok(()) => return Ok(()),
                Err(Broken::Final(failure)) => return Err(failure),
                Err(Broken::Retry(cause)) => (cause, ATTEMPTS),
                Err(Broken::Connect(cause)) => (cause, CONNECT_ATTEMPTS),
            };
            if attempt >= most {
                return Err(Failure::Next(format!("{cause} (after {attempt} attempts)")));
            }
            meter.step(&format!("{cause}; trying again"));
            tokio::time::sleep(backoff).await;
            backoff *= 2;
            attempt += 1;
        }
    }

    async fn attempt(&self, url: &str, place: &Place, meter: &Meter<'_>) -> Result<(), Broken> {
        let mut here = fs::metadata(&place.partial).await.map_or(0, |m| m.len());
        if here == place.artifact.bytes {
            return Ok(());
        }
        if here > place.artifact.bytes {
            here = 0;
        }
        let mut request = self.client.get(url);
        if here > 0 {
            request = request.header(RANGE, format!("bytes={here}-"));
        }
        let response = request.send().await.map_err(|e| broken(&e))?;
        let here = if continues(&response, here) { here } else { 0 };
        if here == 0 {
            refuse_status(&response, &place.partial).await?;
        }
        let file = open(&place.partial, here).await.map_err(Broken::Final)?;
        receive(response, file, (here, place), meter).await
    }
}

/// Whether the answer goes on after the first `here` bytes. A server that ignores the range sends it all again.
fn continues(response: &Response, here: u64) -> bool {
    let range =
        response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    here > 0
        && response.status() == StatusCode::PARTIAL_CONTENT
        && range.starts_with(&format!("bytes {here}-"))
}

async fn refuse_status(response: &Response, partial: &Path) -> Result<(), Broken> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    let cause = format!("the server answered {status}");
    if status == StatusCode::RANGE_NOT_SATISFIABLE || status == StatusCode::PARTIAL_CONTENT {
        // What is here does not fit what is there: begin anew.
        let _absent = fs::remove_file(partial).await;
        return Err(Broken::Retry(cause));
    }
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    let retry = status.is_server_error() || passing.contains(&status);
    Err(if retry { Broken::Retry(cause) } else { Broken::Final(Failure::Next(cause)) })
}

/// Opens the partial file to append after `here` bytes; none means from the beginning.
async fn open(partial: &Path, here: u64) -> Result<File, Failure> {
    let opened = File::options()
        .create(true)
        .write(true)
        .append(here > 0)
        .truncate(here == 0)
        .open(partial)
        .await;
    opened.map_err(StoreError::io("open", partial)).map_err(Failure::Stop)
}

async fn receive(
    mut response: Response,
    mut file: File,
    (mut here, place): (u64, &Place),
    meter: &Meter<'_>,
) -> Result<(), Broken> {
    let partial = &place.partial;
    let stop = |e| Broken::Final(Failure::Stop(StoreError::io("write", partial)(e)));
    let expected = place.artifact.bytes;
    let ended = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                here += chunk.len() as u64;
                if here > expected {
                    let _absent = fs::remove_file(partial).await;
                    let cause =
                        format!("the server sends more than the {expected} bytes of the catalog");
                    return Err(Broken::Final(Failure::Next(cause)));
                }
                file.write_all(&chunk).await.map_err(stop)?;
                meter.fetched(here);
            }
            Ok(None) => break Ok(()),
            Err(e) => break Err(broken(&e)),
        }
    };
    // Also after a broken body: what came is kept for the next attempt.
    file.flush().await.map_err(stop)?;
    ended?;
    if here < expected {
        return Err(Broken::Retry(format!("the download ended after {here} of {expected} bytes")));
    }
    Ok(())
}

fn broken(error: &reqwest::Error) -> Broken {
    if error.is_connect() { Broken::Connect(chain(error)) } else { Broken::Retry(chain(error)) }
}

/// An error with its causes: reqwest's own words alone do not say that a name was not found.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}
