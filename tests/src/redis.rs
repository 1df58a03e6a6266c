//! A Redis of a test's own: on a socket in a folder that goes with it, with nothing on disk, ended by its process id.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixStream;

/// Longest time until it answers; Debian's takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `redis-server`, of Debian's package of that name.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    dir: TempDir,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same that lets in whoever knows `password`.
    pub async fn start_with_password(password: &str) -> Self {
        Self::start_with(&["--requirepass", password]).await
    }

    /// The same that speaks TLS too, with the certificate and the key in these files; and the URL for that.
    pub async fn start_with_tls(certificate: &str, key: &str) -> (Self, String) {
        // Redis cannot choose a port by itself, so one that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let named = port.to_string();
        let tls = ["--tls-port", &named, "--tls-cert-file", certificate, "--tls-key-file", key];
        let redis = Self::start_with(&[&tls[..], &["--tls-auth-clients", "no"]].concat()).await;
        (redis, format!("rediss://127.0.0.1:{port}"))
    }

    async fn start_with(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = serve(dir.path(), more);
        let redis = Self { child, dir };
        redis.until_there().await;
        redis
    }

    /// What `edge.state.redis_url` says.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket())
    }

    /// Ends it as a crash does, with all it held.
    pub fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, empty, in the same place.
    pub async fn restart(&mut self) {
        self.crash();
        self.child = serve(self.dir.path(), &[]);
        self.until_there().await;
    }

    /// Stops it in mid-step: it is there, and answers nothing.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    fn socket(&self) -> String {
        self.dir.path().join("redis.sock").display().to_string()
    }

    async fn until_there(&self) {
        let there = async {
            while UnixStream::connect(self.socket()).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, there).await.unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have been ended already.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

fn serve(dir: &Path, more: &[&str]) -> Child {
    // A socket that a crash left is in the way.
    let _removed = std::fs::remove_file(dir.join("redis.sock"));
    let mut command = Command::new("redis-server");
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"]);
    command.args(more);
    command.spawn().unwrap_or_else(|_| no_redis())
}

#[expect(clippy::panic, reason = "test support: a failed start is a failed test")]
fn no_redis() -> ! {
    panic!("`redis-server` is not here; deploy/setup/packages.sh installs it")
}
