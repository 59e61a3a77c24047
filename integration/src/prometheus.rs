//! A real Prometheus that scrapes one page, and its answers to queries.

use std::fmt::Write;
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
        Self::scraping(&[("envoy", target, path)], "")
    }

    /// Starts one that scrapes each (job, port, path) every second, with more lines of configuration.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn scraping(jobs: &[(&str, u16, &str)], more: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("prometheus.yml");
        let mut text = format!("{more}\nscrape_configs:\n");
        for (job, target, path) in jobs {
            let _ = write!(
                text,
                "- job_name: {job}\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
                 metrics_path: {path}\n  static_configs: [{{ targets: ['127.0.0.1:{target}'] }}]\n"
            );
        }
        fs::write(&config, text)?;
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
        let value = self.ask(query)?;
        let text = value.pointer("/0/value/1").and_then(serde_json::Value::as_str);
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// How many series a query gives whose value is a number (not NaN).
    ///
    /// # Errors
    /// If Prometheus does not answer, or does not understand the query: then with what it says.
    pub fn series(&self, query: &str) -> Result<usize> {
        let value = self.ask(query)?;
        let series = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let number = |one: &&serde_json::Value| one.pointer("/value/1").is_some_and(|value| value != "NaN");
        Ok(series.iter().filter(number).count())
    }

    /// Its rule groups, as its API gives them.
    ///
    /// # Errors
    /// If Prometheus does not answer.
    pub fn rule_groups(&self) -> Result<serde_json::Value> {
        self.get("/api/v1/rules", "/data/groups")
    }

    /// The result of a query.
    fn ask(&self, query: &str) -> Result<serde_json::Value> {
        self.get(&format!("/api/v1/query?query={}", encode(query)), "/data/result").with_context(|| query.to_owned())
    }

    /// A part of what its API answers.
    fn get(&self, path: &str, part: &str) -> Result<serde_json::Value> {
        let answer = Request::bare("GET", path).header("connection", "close").send(self.port)?;
        let mut value: serde_json::Value = serde_json::from_slice(&answer.body)?;
        if value.pointer("/status").is_none_or(|status| status != "success") {
            bail!("Prometheus says {value}");
        }
        Ok(value.pointer_mut(part).map(serde_json::Value::take).unwrap_or_default())
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
