//! The behaviour of the whole, seen from outside: one test binary over stacks on port 0 with deterministic fakes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may say that something cannot fail")]

mod abuse;
mod architecture;
mod ask;
mod configuration;
mod description;
mod dry_run;
mod golden;
mod keys;
mod limits;
mod properties;
mod reload;
mod shutdown;
mod startup;
mod state;
mod text_blocklists;
mod tls;
mod traces;
mod vectors;
