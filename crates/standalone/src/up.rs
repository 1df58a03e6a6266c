//! `koine up`: fetch what is missing, load it, serve, and say on stdout how to call it.

use crate::{Config, Models, Settings, Stack, keys};
use anyhow::Context as _;
use chassis::{Secret, Tasks};
use model_store::{Store, Terminal};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;

/// The version that the SDKs send unasked, for the banner's curl line.
const API_VERSION: &str = "2024-05-01-preview";

/// Runs until SIGTERM or Ctrl-C. On a loopback address a key is made for this run where none is configured; on any other the
/// start is refused then.
#[must_use]
pub fn up(settings: Settings) -> ExitCode {
    let config = settings.standalone.clone();
    chassis::launch("standalone", config, move |config, listener, tasks| {
        serve(config, settings, (listener, tasks))
    })
}

async fn serve(
    config: Config,
    mut settings: Settings,
    (listener, tasks): (TcpListener, Tasks),
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let key = ensure_key(&mut settings.edge, address);
    // Before anything is fetched or loaded.
    edge::auth::Access::build(&settings.edge, address)?;
    let store = Store::open(config.models).context("`standalone.models`")?;
    let models = tokio::select! {
        models = load(&settings, &store, &tasks) => models?,
        // Told to stop while a download runs: there is nothing to finish.
        () = tasks.draining() => return Ok(()),
    };
    let banner = banner(address, key, &settings.edge, &models);
    let stack = Stack::start(settings, models).await?;
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

/// The first configured key, or one made now; none where keys are off, are known by their hash alone, or must be configured
/// because others can reach `address`.
fn ensure_key(edge: &mut edge::Config, address: SocketAddr) -> Option<Secret> {
    let auth = &mut edge.auth;
    if auth.disabled {
        return None;
    }
    let nothing = auth.keys.is_empty() && auth.key_file.is_empty() && auth.jwt.issuers.is_empty();
    if nothing && address.ip().is_loopback() {
        auth.keys.push(keys::random());
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
    let mut text_out = String::new();
    for (label, value) in [
        ("Endpoint", format!("http://{address}").as_str()),
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
        "\ncurl -s 'http://{address}/chat/completions?api-version={API_VERSION}' -H 'api-key: {key}' \
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
