//! The edge as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    chassis::run_reloading("edge", edge::DEFAULTS, edge::serve)
}
