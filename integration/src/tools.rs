//! Where the built artefacts and the foreign programs are.
//!
//! In: the environment (`ENVOY`, `TALLY_WASM`, `TALLYD`), else the places that `make` uses. Out: paths, or an error that
//! says which command makes the missing thing.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The top folder of the project.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The built filter.
///
/// # Errors
/// If it has not been built.
pub fn filter() -> Result<PathBuf> {
    artefact("TALLY_WASM", "dist/tally.wasm", "make dist/tally.wasm")
}

/// The companion's program.
///
/// # Errors
/// If it has not been built.
pub fn tallyd() -> Result<PathBuf> {
    artefact("TALLYD", "target/debug/tallyd", "cargo build --package tallyd")
}

/// The Envoy that setup found or fetched.
///
/// # Errors
/// If there is none.
pub fn envoy() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("ENVOY") {
        return Ok(PathBuf::from(named));
    }
    let found = Command::new(root().join("scripts/envoy.sh")).output().context("scripts/envoy.sh")?;
    if !found.status.success() {
        bail!("no Envoy: run `make setup`");
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&found.stdout).trim()))
}

fn artefact(variable: &str, usual: &str, made_by: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| root().join(usual), PathBuf::from);
    if !path.is_file() {
        bail!("{} is missing: run `{made_by}`", path.display());
    }
    Ok(path)
}

/// A port that was free a moment ago, for programs that cannot tell which port they took.
///
/// # Errors
/// If the system gives none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until something accepts connections at `port`.
#[must_use]
pub fn listening(port: u16, within: Duration) -> bool {
    poll(within, || TcpStream::connect(("127.0.0.1", port)).ok()).is_some()
}

/// Asks again and again until there is an answer or the time is over.
pub fn poll<T>(within: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A command whose process ends with this one, however this one ends (by `setpriv`, where the system has it).
#[must_use]
pub fn child(program: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A child process that is ended when this is dropped.
#[derive(Debug)]
pub struct Process(pub Child);

impl Process {
    /// Has it ended by itself?
    pub fn ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)))
    }

    /// Memory that it holds.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn resident_bytes(&self) -> Result<u64> {
        // What `setpriv` or `taskset` were, the program has become by exec.
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kilobytes * 1024)
    }

    /// Asks it to end (SIGTERM) and waits; kills it if it does not.
    pub fn stop(&mut self, within: Duration) -> bool {
        let asked = Command::new("kill").arg(self.0.id().to_string()).status().is_ok_and(|status| status.success());
        asked && poll(within, || self.0.try_wait().ok().flatten()).is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is fine; nothing else can be done about a failure here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
