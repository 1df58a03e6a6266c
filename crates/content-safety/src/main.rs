//! The content safety service as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    chassis::run("content_safety", content_safety::DEFAULTS, content_safety::serve)
}
