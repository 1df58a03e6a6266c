//! What every service needs and none should write twice: configuration, telemetry, the gRPC door and client, shared state,
//! the admin port, and tasks that stop in order.
//!
//! `run` is the whole life of a service binary: config → telemetry → bind → serve → drain. It knows nothing of models or
//! routes.

pub mod admin;
pub mod balance;
pub mod config;
pub mod grpc;
pub mod reload;
pub mod state;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod watch;

pub use config::{Configured, Loaded, Problems, Secret, ServiceConfig};
pub use reload::Reloads;
pub use tasks::{Admission, Tasks};

use anyhow::Context as _;
use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;

/// How often measurements are taken in: thousands wait at most, each 16 bytes.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// The life of one service binary. `section` is the service's table in the configuration (`edge`), `defaults` its
/// embedded `config.toml`. Understands `--config FILE`, `--check`, `healthcheck`, `--version` and `--help`.
/// Exit code 0 after a clean stop, 2 for a configuration that is wrong, 1 for any other failure.
pub fn run<C, F, Fut>(section: &'static str, defaults: &'static str, serve: F) -> ExitCode
where
    C: Configured + 'static,
    F: FnOnce(C, TcpListener, Tasks) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    run_reloading(section, defaults, |config, reloads: Reloads<C>, listener, tasks| {
        let own = tasks.clone();
        tasks.spawn(async move { reloads.follow_log(&own).await });
        serve(config, listener, tasks)
    })
}

/// The same for a service that takes new values of its options while it runs.
pub fn run_reloading<C, F, Fut>(section: &'static str, defaults: &'static str, serve: F) -> ExitCode
where
    C: Configured + 'static,
    F: FnOnce(C, Reloads<C>, TcpListener, Tasks) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let args = match config::Args::from_process() {
        Ok(args) => args,
        Err(message) => return finish(section, 2, &message),
    };
    if let Some(text) = args.print(section) {
        return finish(section, 0, &text);
    }
    let sources = args.sources();
    let file = sources.file.clone();
    let Loaded { config, values } = match config::load_with_values::<C>(section, defaults, &sources)
    {
        Ok(loaded) => loaded,
        Err(problems) => return finish(section, 2, &problems.to_string()),
    };
    if args.healthcheck {
        let address = config.service().admin_listen.clone();
        return block_on(section, async move { admin::probe(&address).await });
    }
    if let Err(problems) = Problems::in_files(section, &config) {
        return finish(section, 2, &problems.to_string());
    }
    if args.check {
        return check_world(section, section, &config, "configuration is valid");
    }
    launch(section, config, move |config: C, listener, tasks| async move {
        let every = Duration::from_millis(config.service().reload_ms);
        let load = move || config::load_with_values(section, defaults, &sources);
        let reloads = Reloads::new(section, (file, every), (load, C::takes_at_once), values);
        serve(config, reloads, listener, tasks).await
    })
}

/// Asks Redis whether it lets in whom `config`, the table `section`, names; prints `fine` where nothing is wrong. For `config
/// check`: a service that starts goes by its own rule for a Redis that does not answer.
pub fn check_world<C: Configured>(
    program: &str,
    section: &str,
    config: &C,
    fine: &str,
) -> ExitCode {
    let Some(state) = config.state().cloned() else { return finish(program, 0, fine) };
    let asked = block_on(program, async move { Ok(state::check_access(section, &state).await?) });
    if asked == ExitCode::SUCCESS { finish(program, 0, fine) } else { ExitCode::from(2) }
}

/// The life of a process whose configuration is loaded: telemetry → bind → serve → drain.
/// Exit code 0 after a clean stop, 1 for a failure, whose cause is printed.
pub fn launch<C, F, Fut>(section: &'static str, config: C, serve: F) -> ExitCode
where
    C: Configured,
    F: FnOnce(C, TcpListener, Tasks) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    block_on(section, live(section, config, serve))
}

fn block_on(section: &str, life: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return finish(section, 1, &format!("cannot start the runtime: {error}")),
    };
    let outcome = runtime.block_on(life);
    // Threads that are still blocked (a model call past the deadline) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => finish(section, 1, &format!("{error:#}")),
    }
}

async fn live<C, F, Fut>(section: &'static str, config: C, serve: F) -> anyhow::Result<()>
where
    C: Configured,
    F: FnOnce(C, TcpListener, Tasks) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let service = config.service().clone();
    let telemetry = telemetry::init(section, &service.telemetry)?;
    let listener = bind(&service.listen).await?;
    let tasks = Tasks::new();
    if !service.admin_listen.is_empty() {
        let admin = bind(&service.admin_listen).await?;
        admin::spawn(admin, &tasks, telemetry.metrics());
    }
    tasks.spawn_untracked(tidy(telemetry.metrics(), tasks.stopping()));
    tracing::info!(service = section, listen = %listener.local_addr()?, "starting");
    let stopper = tasks.clone();
    let delay = Duration::from_millis(service.drain_delay_ms);
    let deadline = Duration::from_millis(service.drain_timeout_ms);
    tasks.spawn_untracked(stop_when(terminated, stopper, (delay, deadline)));
    let served = serve(config, listener, tasks.clone()).await;
    // `serve` returns early when it fails; everything else must stop too.
    tasks.stop(deadline).await;
    telemetry.flush();
    tracing::info!(service = section, "stopped");
    served
}

/// Stops `tasks` in order when `told` resolves; at once when it does so again, for whoever asks twice does not want to wait.
async fn stop_when<F: Future<Output = ()>>(
    told: impl Fn() -> F,
    tasks: Tasks,
    (delay, deadline): (Duration, Duration),
) {
    told().await;
    let in_order = async {
        tasks.leave(delay).await;
        tasks.stop(deadline).await;
    };
    tokio::select! {
        () = in_order => {}
        () = told() => tasks.stop(Duration::ZERO).await,
    }
}

/// Takes in measurements every few seconds, scraped or not, until `stopping` resolves.
async fn tidy(metrics: telemetry::Exposition, stopping: impl Future<Output = ()>) {
    let mut stopping = std::pin::pin!(stopping);
    while tokio::time::timeout(TIDY_EVERY, &mut stopping).await.is_err() {
        metrics.tidy();
    }
}

/// Binds `address` (`host:port`, port 0 for any).
///
/// # Errors
/// When the address does not parse or is taken.
pub async fn bind(address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on `{address}`; is another process using it? choose another with `listen`")
    })
}

/// Resolves on SIGTERM or SIGINT.
pub async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut term), Ok(mut int)) => {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        }
        // Without signal handlers the process simply dies on a signal, so there is nothing to wait for.
        _ => std::future::pending().await,
    }
}

/// Writes the answer of a command line. Whoever stopped reading, as `head` does, has what it wanted.
pub fn print(text: &str) {
    let _gone = writeln!(std::io::stdout().lock(), "{text}");
}

#[expect(clippy::print_stderr, reason = "the answer of a command line")]
fn finish(section: &str, code: u8, text: &str) -> ExitCode {
    if code == 0 {
        print(text);
    } else {
        eprintln!("{section}: {text}");
    }
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Notify;
    use tokio::time::Instant;

    const TIMES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

    #[tokio::test(start_paused = true)]
    async fn a_signal_leaves_then_drains_then_stops() {
        let (tasks, signal, began) = (Tasks::new(), Notify::new(), Instant::now());
        tasks.set_ready();
        let _running = tasks.admit().unwrap();
        let mut stop = std::pin::pin!(stop_when(|| signal.notified(), tasks.clone(), TIMES));
        assert!(futures::poll!(&mut stop).is_pending() && tasks.ready());
        signal.notify_one();
        tokio::select! {
            () = &mut stop => panic!("something runs still"),
            () = tasks.draining() => assert_eq!(began.elapsed(), TIMES.0),
        }
        tokio::select! {
            () = &mut stop => {}
            () = tasks.stopping() => {}
        }
        assert_eq!(began.elapsed(), TIMES.0 + TIMES.1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_stops_at_once() {
        let (tasks, signal, began) = (Tasks::new(), Notify::new(), Instant::now());
        tasks.set_ready();
        let _running = tasks.admit().unwrap();
        let mut stop = std::pin::pin!(stop_when(|| signal.notified(), tasks.clone(), TIMES));
        signal.notify_one();
        assert!(futures::poll!(&mut stop).is_pending() && tasks.is_leaving());
        signal.notify_one();
        tokio::select! {
            () = stop => {}
            () = tasks.stopping() => {}
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
