//! The command line: `koine up`, `koine models …`, `koine config …`. Parses words and prints; the work is in the library.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line answers on stdout and stderr"
)]

use chassis::config::Sources;
use clap::{Parser, Subcommand};
use standalone::{Settings, models, up};
use std::path::PathBuf;
use std::process::ExitCode;

/// A self-hosted server for the Azure AI Model Inference API.
#[derive(Debug, Parser)]
#[command(version, name = "koine")]
struct Line {
    /// Configuration file (TOML); without one, the built-in defaults hold.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch missing models and serve all four services in this process.
    Up,
    /// The models of the catalog.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// List what the catalog knows and what is here.
    List,
    /// Fetch models by name; without names, those that the configuration serves.
    Pull { names: Vec<String> },
    /// Read every file again and compare its checksum; without names, all models that are here.
    Verify { names: Vec<String> },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report everything wrong with the configuration.
    Check,
    /// Print every option with its default and what it means.
    Show,
}

fn main() -> ExitCode {
    // libgomp reads this before `main`; spinning threads would starve the other services of this process.
    chassis::config::reexec_with(&[("OMP_WAIT_POLICY", "passive")]);
    let line = Line::parse();
    if let Command::Config(ConfigCommand::Show) = line.command {
        println!("{}", standalone::defaults());
        return ExitCode::SUCCESS;
    }
    let settings = match Settings::load(&Sources::from_process(line.config)) {
        Ok(settings) => settings,
        Err(problems) => {
            eprintln!("koine: {problems}");
            return ExitCode::from(2);
        }
    };
    match line.command {
        Command::Up => up::up(settings),
        Command::Models(command) => outcome(run_models(&settings, command)),
        Command::Config(ConfigCommand::Check | ConfigCommand::Show) => {
            println!("the configuration is valid");
            ExitCode::SUCCESS
        }
    }
}

fn run_models(settings: &Settings, command: ModelsCommand) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            ModelsCommand::List => models::list(settings).map(|table| {
                println!("{table}");
                true
            }),
            ModelsCommand::Pull { names } => models::pull(settings, names).await.map(|dir| {
                println!("models are complete in {}", dir.display());
                true
            }),
            ModelsCommand::Verify { names } => {
                models::verify(settings, names).await.map(|report| {
                    println!("{}", report.text);
                    report.sound
                })
            }
        }
    })
}

fn outcome(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("koine: {error:#}");
            ExitCode::FAILURE
        }
    }
}
