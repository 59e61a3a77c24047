//! A process that is measured: pinned to a core, its processor time and memory read from /proc.
//!
//! In: a program and its arguments. Out: nanoseconds on a core, bytes resident. It is always ended.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tally_integration::client::Request;
use tally_integration::tools::{self, Process, poll};
use tempfile::TempDir;

use crate::variants::Variant;

const START: Duration = Duration::from_secs(60);

/// It runs until it is dropped.
pub(crate) struct Measured(Process);

impl Measured {
    /// Starts it on this core.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(core: usize, program: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = tools::child(Path::new("/usr/bin/taskset"));
        command.args(["-c", &core.to_string()]).arg(program).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(Process(child.with_context(|| format!("taskset {}", program.display()))?)))
    }

    /// Nanoseconds that its threads have been on a core, finer than the ticks of /proc/PID/stat.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn nanos(&self) -> Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0.0.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            sum += text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }

    /// Kilobytes resident.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn resident_kb(&self) -> Result<f64> {
        Ok(self.0.resident_bytes()? as f64 / 1024.0)
    }
}

/// An Envoy with one variant.
pub(crate) struct Envoy {
    /// Where clients connect.
    pub port: u16,
    /// The process.
    pub process: Measured,
    /// From its start until it said that it is ready.
    pub start: Duration,
    _folder: TempDir,
}

impl Envoy {
    /// Starts it and waits until it is ready; nobody else runs meanwhile.
    ///
    /// # Errors
    /// If it does not become so.
    pub(crate) fn start(variant: &Variant, upstream: u16, ext_proc: u16, core: usize, workers: u32) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = tools::free_port()?;
        let (config, address) = (folder.path().join("envoy.yaml"), folder.path().join("admin"));
        std::fs::write(&config, variant.bootstrap(upstream, port, ext_proc))?;
        let (config, at, workers) = (config.display().to_string(), address.display().to_string(), workers.to_string());
        let arguments = [
            "-c",
            &config,
            "--admin-address-path",
            &at,
            "--disable-hot-restart",
            "-l",
            "off",
            "--concurrency",
            &workers,
        ];
        let program = tools::envoy()?;
        let began = Instant::now();
        let process = Measured::start(core, &program, &arguments)?;
        poll(START, || {
            let admin = std::fs::read_to_string(&address).ok()?.trim().rsplit(':').next()?.parse().ok()?;
            let ready = Request::bare("GET", "/ready").header("connection", "close").send(admin).ok()?;
            (ready.status == 200).then_some(())
        })
        .with_context(|| format!("Envoy with {} did not become ready", variant.name))?;
        Ok(Self { port, process, start: began.elapsed(), _folder: folder })
    }
}
