//! `koine up`: fetch what is missing, load it, serve, and say on stdout how to call it.

use crate::{Config, Models, Settings, Stack, keys};
use anyhow::Context as _;
use chassis::config::Sources;
use chassis::{Configured as _, Loaded, Reloads, Secret, Tasks};
use model_store::{Store, Terminal};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// The version that the SDKs send unasked, for the banner's curl line.
const API_VERSION: &str = "2024-05-01-preview";

/// Runs until SIGTERM or Ctrl-C. On a loopback address a key is made for this run where none is configured; on any other the
/// start is refused then.
#[must_use]
pub fn up(loaded: Loaded<Settings>, sources: Sources) -> ExitCode {
    let config = loaded.config.standalone.clone();
    chassis::launch("standalone", config, move |config, listener, tasks| async move {
        let every = Duration::from_millis(config.service.reload_ms);
        let file = sources.file.clone();
        let load = move || Settings::load_with_values(&sources);
        let takes = edge::Config::takes_at_once;
        let reloads = Reloads::new("standalone", (file, every), (load, takes), loaded.values);
        Box::pin(serve(config, (loaded.config, reloads), (listener, tasks))).await
    })
}

async fn serve(
    config: Config,
    (mut settings, reloads): (Settings, Reloads<Settings>),
    (listener, tasks): (TcpListener, Tasks),
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let made = keys::random();
    let key = ensure_key(&mut settings.edge, &made, address);
    let reloads = reloads.map(move |mut settings| {
        ensure_key(&mut settings.edge, &made, address);
        settings.edge
    });
    // Before anything is fetched or loaded.
    edge::auth::Access::build(&settings.edge, address)?;
    let store = Store::open(config.models).context("`standalone.models`")?;
    let models = tokio::select! {
        models = load(&settings, &store, &tasks) => models?,
        // Told to stop while a download runs: there is nothing to finish.
        () = tasks.draining() => return Ok(()),
    };
    let banner = banner(address, key, &settings.edge, &models);
    let stack = Stack::start(settings, models).await?.reloading(reloads);
    let ready = tasks.until_ready();
    tasks.spawn(async move {
        ready.await;
        print(&banner);
    });
    stack.serve(listener, tasks).await
}

async fn load(settings: &Settings, store: &Store, tasks: &Tasks) -> anyhow::Result<Models> {
    let progress = Terminal::new();
    for name in settings.model_names()? {
        store.ensure(&name, &progress).await?;
    }
    Ok(Models {
        chat: chat::load(&settings.chat, store, &progress, tasks).await?,
        embedding: embedding::load(&settings.embedding, store, &progress, tasks).await?,
        content_safety: Arc::new(
            content_safety::load(&settings.content_safety, store, &progress, tasks).await?,
        ),
    })
}

/// The first configured key, or the one that was made for this run; none where keys are off, are known by their hash alone, or must be configured
/// because others can reach `address`.
fn ensure_key(edge: &mut edge::Config, made: &Secret, address: SocketAddr) -> Option<Secret> {
    let auth = &mut edge.auth;
    if auth.disabled {
        return None;
    }
    let nothing = auth.keys.is_empty() && auth.key_file.is_empty() && auth.jwt.issuers.is_empty();
    if nothing && address.ip().is_loopback() {
        auth.keys.push(made.clone());
    }
    auth.keys.first().cloned()
}

/// Stable lines, label and value, that people read and scripts parse. The key is shown: it is the caller's to copy.
fn banner(
    address: SocketAddr,
    key: Option<Secret>,
    edge: &edge::Config,
    models: &Models,
) -> String {
    let chat = models.chat.models();
    let chat =
        default_name(&edge.defaults.chat, chat.iter().find(|m| m.chat).map(|m| m.name.as_str()));
    let first = |image| models.embedding.models().find(|m| if image { m.image } else { m.text });
    let text = default_name(&edge.defaults.embeddings, first(false).map(|m| m.name.as_str()));
    let image = default_name(&edge.defaults.image_embeddings, first(true).map(|m| m.name.as_str()));
    let key = key.map_or_else(
        || "(none needed, or see edge.auth.key_file)".to_owned(),
        |k| k.expose().to_owned(),
    );
    let scheme = if edge.tls.is_on() { "https" } else { "http" };
    let mut text_out = String::new();
    for (label, value) in [
        ("Endpoint", format!("{scheme}://{address}").as_str()),
        ("Key", &key),
        ("Chat", chat),
        ("Embeddings", text),
        ("Image embeddings", image),
    ] {
        // Writing to a String cannot fail.
        let _written = writeln!(text_out, "{label:<18}{value}");
    }
    let body = r#"{"messages":[{"role":"system","content":"Answer in one sentence."},{"role":"user","content":"What is the capital of France?"}],"max_tokens":40}"#;
    let _written = write!(
        text_out,
        "\ncurl -s '{scheme}://{address}/chat/completions?api-version={API_VERSION}' -H 'api-key: {key}' \
         -H 'content-type: application/json' -d '{body}'"
    );
    text_out
}

fn default_name<'a>(configured: &'a str, first: Option<&'a str>) -> &'a str {
    if configured.is_empty() { first.unwrap_or("none") } else { configured }
}

#[expect(clippy::print_stdout, reason = "the banner is the answer of the command line")]
fn print(banner: &str) {
    println!("{banner}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(env: &[(&str, &str)]) -> edge::Config {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::load(&Sources { file: None, env }).unwrap().edge
    }

    #[test]
    fn a_key_is_made_where_nobody_else_can_come_and_nowhere_else() {
        let (here, everywhere): (SocketAddr, SocketAddr) =
            ("127.0.0.1:8080".parse().unwrap(), "0.0.0.0:8080".parse().unwrap());
        let made = keys::random();
        let mut local = edge(&[]);
        assert_eq!(ensure_key(&mut local, &made, here).unwrap().expose(), made.expose());
        assert!(!edge::auth::Access::build(&local, here).unwrap().is_open());
        let mut open = edge(&[]);
        assert!(ensure_key(&mut open, &made, everywhere).is_none());
        let refused = edge::auth::Access::build(&open, everywhere).unwrap_err().to_string();
        assert!(refused.contains("no keys") && refused.contains("`edge.auth.keys`"), "{refused}");
        let mut own = edge(&[("EDGE__AUTH__KEYS", "[\"own\"]")]);
        assert_eq!(ensure_key(&mut own, &made, everywhere).unwrap().expose(), "own");
        let mut disabled = edge(&[("EDGE__AUTH__DISABLED", "true")]);
        assert!(ensure_key(&mut disabled, &made, everywhere).is_none());
    }

    #[test]
    fn without_configuration_the_address_is_this_machine_s_own() {
        let settings = Settings::load(&Sources::default()).unwrap();
        let listen: SocketAddr = settings.standalone.service.listen.parse().unwrap();
        assert!(listen.ip().is_loopback());
    }
}
