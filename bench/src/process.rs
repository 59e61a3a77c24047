//! A process that is measured: pinned to a core, its processor time and memory read from /proc.
//!
//! In: a program and its arguments. Out: nanoseconds on a core, bytes resident. It is always ended.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tally_integration::tools;
use tempfile::TempDir;

use crate::variants::Variant;

const START: Duration = Duration::from_secs(60);

/// It runs until it is dropped.
pub(crate) struct Measured {
    child: Child,
}

impl Measured {
    /// Starts it on this core.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(core: usize, program: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]).arg(program).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self { child: child.with_context(|| format!("taskset {}", program.display()))? })
    }

    /// Nanoseconds that its threads have been on a core, finer than the ticks of /proc/PID/stat.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn nanos(&self) -> Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            sum += text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }

    /// Kilobytes resident.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn resident_kb(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // Nothing else can be done about a failure here.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become so.
    pub(crate) async fn start(
        variant: &Variant,
        upstream: u16,
        ext_proc: u16,
        core: usize,
        workers: u32,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = tools::free_port()?;
        let (config, address) = (folder.path().join("envoy.yaml"), folder.path().join("admin"));
        std::fs::write(&config, variant.bootstrap(upstream, port, ext_proc))?;
        let (config, at) = (config.display().to_string(), address.display().to_string());
        let workers = workers.to_string();
        let arguments =
            ["-c", &config, "--admin-address-path", &at, "--disable-hot-restart", "-l", "off", "--concurrency"];
        let began = Instant::now();
        let process = Measured::start(core, &tools::envoy()?, &[&arguments[..], &[workers.as_str()]].concat())?;
        while began.elapsed() < START {
            let admin = std::fs::read_to_string(&address).ok();
            let admin = admin.and_then(|at| at.trim().rsplit(':').next()?.parse::<u16>().ok());
            if let Some(admin) = admin
                && is_ready(admin).await
            {
                return Ok(Self { port, process, start: began.elapsed(), _folder: folder });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bail!("Envoy with {} did not become ready", variant.name)
    }
}

async fn is_ready(admin: u16) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", admin)).await?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    ask.await.unwrap_or(false)
}
