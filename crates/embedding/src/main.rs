//! The embedding service as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    chassis::run("embedding", embedding::DEFAULTS, embedding::serve)
}
