//! The token that the edge shows and the doors of the services ask for.
//!
//! It stands in the configuration or in a file, one a line, read again when it changes. A door takes each of them and a caller
//! shows the first, so that a token is replaced without a pause: add the new one below at the doors, show it, remove the old
//! one. Only hashes are compared, all of them each time, so that neither a length nor a first differing byte shows in the time
//! it takes.

use crate::watch::Watched;
use crate::{Problems, Secret, Tasks};
use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use subtle::{Choice, ConstantTimeEq as _};

/// A shorter token can be guessed.
const LEAST_LENGTH: usize = 16;

/// Where tokens are: an option that is one, and the name of a file. Either may be empty.
#[derive(Debug, Clone)]
pub(super) struct Source(pub(super) (Secret, String));

impl Source {
    /// Notes tokens that cannot be used, under `option`.
    pub(super) fn check(&self, option: &str, problems: &mut Problems) {
        let (token, _) = &self.0;
        if !token.expose().is_empty()
            && let Err(message) = usable(token.expose())
        {
            problems.add(&format!("{option}.token"), message);
        }
    }

    /// All of them; the first is shown.
    pub(super) fn read(&self) -> Result<Vec<Secret>, String> {
        let (token, file) = &self.0;
        let mut tokens: Vec<Secret> = Vec::new();
        if !token.expose().is_empty() {
            tokens.push(token.clone());
        }
        if !file.is_empty() {
            let text = std::fs::read_to_string(file).map_err(|error| {
                format!("cannot read `{file}`: {error}; is the secret mounted, and readable by this user?")
            })?;
            let lines: Vec<_> =
                text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            if lines.is_empty() {
                return Err(format!("`{file}` is empty; put a token into it, one a line"));
            }
            for line in lines {
                usable(line).map_err(|message| format!("a token in `{file}` {message}"))?;
                tokens.push(Secret::new(line));
            }
        }
        Ok(tokens)
    }
}

/// What a token must be; says nothing of what it is.
fn usable(token: &str) -> Result<(), String> {
    if token.len() >= LEAST_LENGTH && token.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!(
        "must be {LEAST_LENGTH} or more characters of ASCII without blanks, such as `openssl rand -hex 32` prints"
    ))
}

/// Tokens as they are now; clones share everything.
#[derive(Clone)]
pub(super) struct Tokens {
    current: Arc<ArcSwap<Vec<Secret>>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// Those of `source`, options of `section` under `option`; none where there are none. Looks at the file every `every` until
    /// `tasks` stop.
    pub(super) fn build(
        (section, option): (&'static str, &'static str),
        source: &Source,
        (every, tasks): (Duration, &Tasks),
    ) -> Result<Option<Self>, Problems> {
        let watched = Watched::new([PathBuf::from(&source.0.1)]);
        let tokens = source.read().map_err(|message| {
            let mut problems = Problems::of(section);
            problems.add(&format!("{option}.token_file"), message);
            problems
        })?;
        if tokens.is_empty() {
            return Ok(None);
        }
        let current = Arc::new(ArcSwap::from_pointee(tokens));
        let (weak, source) = (Arc::downgrade(&current), source.clone());
        watched.follow(every, tasks, move || {
            let Some(current) = weak.upgrade() else { return false };
            match source.read() {
                Ok(tokens) => {
                    current.store(Arc::new(tokens));
                    tracing::info!("tokens between the services were read again");
                }
                Err(problem) => {
                    tracing::warn!(
                        problem,
                        "tokens between the services were not read again; those of before hold"
                    );
                }
            }
            true
        });
        Ok(Some(Self { current }))
    }

    /// Whether `shown` is one of them.
    pub(super) fn know(&self, shown: &[u8]) -> bool {
        let shown = Sha256::digest(shown);
        let mut known = Choice::from(0);
        for token in self.current.load().iter() {
            known |= Sha256::digest(token.expose()).ct_eq(&shown);
        }
        known.into()
    }

    /// The one to show.
    pub(super) fn first(&self) -> Option<Secret> {
        self.current.load().first().cloned()
    }
}
