//! The chat service as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    // libgomp reads this before `main`. Threads that spin between decoding steps take the cores from everybody else:
    // 39 tokens a second instead of 7 on two busy cores.
    chassis::config::reexec_with(&[("OMP_WAIT_POLICY", "passive")]);
    chassis::run("chat", chat::DEFAULTS, chat::serve)
}
