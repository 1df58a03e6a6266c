//! A whole Koine on port 0 with deterministic models: what the tests and the benchmark drive.
#![expect(clippy::unwrap_used, reason = "test support: a failed start is a failed test")]

pub mod collector;
pub mod fakes;
pub mod redis;

use chassis::config::Sources;
use chassis::{Configured as _, Loaded, Reloads, Tasks};
use chat::{Backend, Backends};
use embedding::{Embedder, Embedders};
use fakes::{ByteVectors, Parrot, WordJudge};
use standalone::{Models, Settings, Stack};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The key that the stack takes.
pub const KEY: &str = "golden-key";
/// How long running requests may go on when the stack stops.
const DRAIN: Duration = Duration::from_secs(10);
/// How often the configuration file of a stack that has one is looked at.
const RELOAD: Duration = Duration::from_millis(5);
/// The options of the stack: small limits, and a deployment under each kind of policy, and one with a limit.
const OPTIONS: [(&str, &str); 9] = [
    ("EDGE__AUTH__KEYS", "[\"golden-key\"]"),
    ("EDGE__LIMITS__BODY_BYTES", "65536"),
    ("EDGE__DISCOVERY__RETRY_MS", "10"),
    ("EDGE__DEFAULTS__CHAT", "talk"),
    ("EDGE__DEFAULTS__COMPLETIONS", "talk"),
    (
        "EDGE__DEPLOYMENTS",
        "[{name='strict-talk',service='chat',model='talk',policy='kitchen'},\
          {name='free-talk',service='chat',model='talk',policy=''},\
          {name='busy-talk',service='chat',model='talk',policy=''}]",
    ),
    ("EDGE__RATES__DEPLOYMENTS", "[{deployments=['busy-talk'],limits={requests_per_day=1}}]"),
    (
        "CONTENT_SAFETY__BLOCKLISTS__LISTS",
        "[{name='kitchen',items=[{id='tomato',text='tomatoes'}]}]",
    ),
    (
        "CONTENT_SAFETY__POLICIES__KITCHEN",
        "{prompt={hate='off',self_harm='off',sexual='off',violence='off'},\
          completion={hate='off',self_harm='off',sexual='off',violence='off'},\
          jailbreak='off',indirect_attack='off',blocklists=[{name='kitchen',mode='block'}]}",
    ),
];

/// A running stack; `stop` it, or its tasks end with the runtime.
#[derive(Debug)]
pub struct TestStack {
    /// Where the REST API is.
    pub address: SocketAddr,
    /// The edge's tasks.
    pub tasks: Tasks,
    /// The chat model, which knows how many of its streams are alive.
    pub parrot: Parrot,
    scheme: &'static str,
    http: reqwest::Client,
    served: JoinHandle<anyhow::Result<()>>,
}

impl TestStack {
    /// Starts all four services with the fakes and waits until the edge knows its deployments.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more options, by their environment names.
    pub async fn start_with(more: &[(&str, &str)]) -> Self {
        Self::start_beside(Vec::new(), more).await
    }

    /// The same with more chat models, after those of the parrot.
    pub async fn start_beside(others: Vec<Arc<dyn Backend>>, more: &[(&str, &str)]) -> Self {
        Self::launch(others, sources(None, more)).await
    }

    /// The same with a configuration file, which is looked at all the time.
    pub async fn start_with_file(file: &Path, more: &[(&str, &str)]) -> Self {
        Self::launch(Vec::new(), sources(Some(file.to_owned()), more)).await
    }

    async fn launch(others: Vec<Arc<dyn Backend>>, sources: Sources) -> Self {
        let Loaded { config: settings, values } = Settings::load_with_values(&sources).unwrap();
        let scheme = if settings.edge.tls.is_on() { "https" } else { "http" };
        let file = sources.file.clone();
        let load = move || Settings::load_with_values(&sources);
        let takes = edge::Config::takes_at_once;
        let reloads = Reloads::new("standalone", (file, RELOAD), (load, takes), values)
            .map(|settings: Settings| settings.edge);
        let parrot = Parrot::default();
        let mut backends: Vec<Arc<dyn Backend>> = vec![Arc::new(parrot.clone())];
        backends.extend(others);
        let mut embedders = Embedders::new();
        let vectors: Arc<dyn Embedder> = Arc::new(ByteVectors);
        embedders.add(&vectors).unwrap();
        let models = Models {
            chat: Backends::new(backends).unwrap(),
            embedding: embedders,
            content_safety: Arc::new(WordJudge),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let stack = Stack::start(settings, models).await.unwrap().reloading(reloads);
        let served = Tasks::new().spawn(stack.serve(listener, tasks.clone()));
        tasks.until_ready().await;
        Self { address, scheme, tasks, parrot, http: http(), served }
    }

    /// `path` on this stack.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// A client that keeps connections open.
    #[must_use]
    pub const fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Stops as SIGTERM does and waits for the end.
    pub async fn stop(self) {
        self.tasks.stop(DRAIN).await;
        self.served.await.unwrap().unwrap();
    }
}

fn sources(file: Option<PathBuf>, more: &[(&str, &str)]) -> Sources {
    let env = OPTIONS.iter().chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Sources { file, env: env.collect() }
}

fn http() -> reqwest::Client {
    // Another test of this process may have installed it already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().tcp_nodelay(true).build().unwrap()
}
