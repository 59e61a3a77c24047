//! A running `tallyd lora-syncer` with a folder that stands for its mounted ConfigMap.
//!
//! In: lists to write, paths to ask. Out: its page, its log. It is always stopped.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::client::{Answer, Request};
use crate::page::Page;
use crate::tools::{self, Process, poll};

/// A loaded machine takes its time to start a process.
const START: Duration = Duration::from_secs(30);

/// The process and its files.
#[derive(Debug)]
pub struct Syncer {
    /// Where its page is.
    pub port: u16,
    process: Process,
    folder: TempDir,
    writes: u32,
}

impl Syncer {
    /// Starts it with an empty ConfigMap folder; it looks at the server every second.
    ///
    /// # Errors
    /// If it does not open its page.
    pub fn start(flags: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("config"))?;
        let address = folder.path().join("address");
        let log = File::create(folder.path().join("log"))?;
        let child = tools::child(&tools::tallyd()?)
            .args(["lora-syncer", "--metrics-port=0", "--reconcile-trigger=1", "--health-check-interval=1"])
            .arg("--address-file")
            .arg(&address)
            .args(flags)
            .env("DYNAMIC_LORA_ROLLOUT_CONFIG", folder.path().join("config/configmap.yaml"))
            // As in an image that has no certificates of the system.
            .env("SSL_CERT_FILE", "/nonexistent")
            .env("SSL_CERT_DIR", "/nonexistent")
            .env_remove("VLLM_API_KEY")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting tallyd")?;
        let mut syncer = Self { port: 0, process: Process(child), folder, writes: 0 };
        let open = poll(START, || {
            let text = fs::read_to_string(&address).ok()?;
            text.strip_suffix('\n')?.rsplit(':').next()?.parse().ok()
        });
        let Some(port) = open else { bail!("no page; its log:\n{}", syncer.log()) };
        syncer.port = port;
        Ok(syncer)
    }

    /// Swaps the file as kubelet does: a new folder behind the `..data` link, which the file's own link goes through.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.writes += 1;
        let root = self.folder.path().join("config");
        let version = format!("..{}", self.writes);
        fs::create_dir(root.join(&version))?;
        fs::write(root.join(&version).join("configmap.yaml"), text)?;
        symlink(&version, root.join("..data_tmp"))?;
        fs::rename(root.join("..data_tmp"), root.join("..data"))?;
        match self.writes {
            1 => symlink("..data/configmap.yaml", root.join("configmap.yaml"))?,
            writes => fs::remove_dir_all(root.join(format!("..{}", writes - 1)))?,
        }
        Ok(())
    }

    /// What it answers at a path.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn ask(&self, path: &str) -> Result<Answer> {
        Ok(Request::bare("GET", path).header("connection", "close").send(self.port)?)
    }

    /// Its metrics.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn page(&self) -> Result<Page> {
        Ok(Page::parse(&String::from_utf8_lossy(&self.ask("/metrics")?.body)))
    }

    /// Waits until its page says so.
    ///
    /// # Errors
    /// If it does not in time: then with the page and the log.
    pub fn until(&self, within: Duration, what: &str, says: impl Fn(&Page) -> bool) -> Result<()> {
        if poll(within, || self.page().ok().filter(|page| says(page))).is_some() {
            return Ok(());
        }
        let page = self.ask("/metrics").map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
        bail!("not within {} s: {what}\n{}\n{}", within.as_secs(), page.unwrap_or_default(), self.log())
    }

    /// Waits until this adapter's state is shown.
    ///
    /// # Errors
    /// If it is not in time.
    pub fn until_status(&self, within: Duration, id: &str, loaded: f64) -> Result<()> {
        self.until(within, &format!("{id} is {loaded}"), |page| status(page, id) == Some(loaded))
    }

    /// Waits until it answers this on `/readyz`.
    ///
    /// # Errors
    /// If it does not in time.
    pub fn until_ready(&self, within: Duration, wanted: u16) -> Result<String> {
        let found = poll(within, || self.ask("/readyz").ok().filter(|answer| answer.status == wanted));
        let answer = found.with_context(|| format!("/readyz is not {wanted}\n{}", self.log()))?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The most memory that it has held, in KiB.
    ///
    /// # Errors
    /// Where there is no `/proc`.
    pub fn peak_memory(&self) -> Result<u64> {
        // The wrapper that ties its life to ours replaces itself by it: the process is the same.
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Asks it to end; has it, in time and without complaint?
    pub fn stop(&mut self, within: Duration) -> bool {
        self.process.stop(within) && self.process.0.wait().is_ok_and(|status| status.success())
    }
}

/// State of an adapter, `None` without its series.
#[must_use]
pub fn status(page: &Page, id: &str) -> Option<f64> {
    page.sum("lora_syncer_adapter_status", &[("adapter_name", id)])
}
