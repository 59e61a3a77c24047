//! A real Prometheus that scrapes one page, and its answers to queries.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::client::Request;
use crate::tools::{self, Process, poll};

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    /// Where it listens.
    pub port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Is it installed?
    #[must_use]
    pub fn installed() -> bool {
        Command::new("prometheus").arg("--version").output().is_ok_and(|output| output.status.success())
    }

    /// Starts one that scrapes `path` at `target` every second.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(target: u16, path: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "scrape_configs:\n- job_name: envoy\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
                 metrics_path: {path}\n  static_configs: [{{ targets: ['127.0.0.1:{target}'] }}]\n"
            ),
        )?;
        let port = tools::free_port()?;
        let child = tools::child(Path::new("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting prometheus")?;
        let prometheus = Self { port, _process: Process(child), _folder: folder };
        let ready = poll(Duration::from_secs(30), || {
            let answer = Request::bare("GET", "/-/ready").header("connection", "close").send(port).ok()?;
            (answer.status == 200).then_some(())
        });
        if ready.is_none() {
            bail!("Prometheus did not become ready");
        }
        Ok(prometheus)
    }

    /// The value of a query that gives one series; `None` while it gives none.
    ///
    /// # Errors
    /// If Prometheus does not answer.
    pub fn query(&self, query: &str) -> Result<Option<f64>> {
        let path = format!("/api/v1/query?query={}", encode(query));
        let answer = Request::bare("GET", &path).header("connection", "close").send(self.port)?;
        let value: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let text = value.pointer("/data/result/0/value/1").and_then(serde_json::Value::as_str);
        Ok(text.and_then(|text| text.parse().ok()))
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
