//! The command line: `koine up`, `koine models …`, `koine keys …`, `koine config …`. Parses words and prints; the work is in the library.
#![expect(clippy::print_stderr, reason = "a command line answers on stdout and stderr")]

use chassis::Problems;
use chassis::config::Sources;
use clap::{Parser, Subcommand};
use standalone::{Settings, keys, models, up};
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
    /// Ask the `koine up` of this configuration whether it is ready; fails when it is not.
    Healthcheck,
    /// The models of the catalog.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Keys for callers.
    #[command(subcommand)]
    Keys(KeysCommand),
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
enum KeysCommand {
    /// Make a key: the key itself goes to stderr, once; its entry for the key file, with its hash, to stdout.
    New { name: String },
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
    match &line.command {
        Command::Config(ConfigCommand::Show) => {
            chassis::print(&standalone::defaults());
            return ExitCode::SUCCESS;
        }
        Command::Keys(KeysCommand::New { name }) => return new_key(name),
        Command::Up
        | Command::Healthcheck
        | Command::Models(_)
        | Command::Config(ConfigCommand::Check) => {}
    }
    let sources = Sources::from_process(line.config);
    let loaded = match Settings::load_with_values(&sources) {
        Ok(loaded) => loaded,
        Err(problems) => return wrong(&problems),
    };
    let settings = loaded.config.clone();
    if matches!(line.command, Command::Up | Command::Config(_))
        && let Err(problems) = settings.check_files()
    {
        return wrong(&problems);
    }
    match line.command {
        Command::Up => up::up(loaded, sources),
        Command::Healthcheck => outcome(healthcheck(&settings).map(|()| true)),
        Command::Models(command) => outcome(run_models(&settings, command)),
        Command::Keys(_) | Command::Config(ConfigCommand::Check | ConfigCommand::Show) => {
            chassis::check_world("koine", "edge", &settings.edge, "the configuration is valid")
        }
    }
}

fn wrong(problems: &Problems) -> ExitCode {
    eprintln!("koine: {problems}");
    ExitCode::from(2)
}

fn new_key(name: &str) -> ExitCode {
    match keys::new(name) {
        Ok(new) => {
            eprintln!("The key of {name}; it is shown this once:\n{}\n", new.key.expose());
            chassis::print(&new.entry);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("koine: {message}");
            ExitCode::from(2)
        }
    }
}

fn healthcheck(settings: &Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(chassis::admin::probe(&settings.standalone.service.admin_listen))
}

fn run_models(settings: &Settings, command: ModelsCommand) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            ModelsCommand::List => models::list(settings).map(|table| {
                chassis::print(&table);
                true
            }),
            ModelsCommand::Pull { names } => models::pull(settings, names).await.map(|dir| {
                chassis::print(&format!("models are complete in {}", dir.display()));
                true
            }),
            ModelsCommand::Verify { names } => {
                models::verify(settings, names).await.map(|report| {
                    chassis::print(&report.text);
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
