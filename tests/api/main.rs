//! The behaviour of the whole, seen from outside: one test binary over stacks on port 0 with deterministic fakes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may say that something cannot fail")]

mod architecture;
mod ask;
mod description;
mod golden;
mod keys;
mod limits;
mod properties;
mod shutdown;
mod state;
mod text_blocklists;
mod traces;
mod vectors;
