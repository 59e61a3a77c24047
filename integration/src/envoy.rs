//! A real Envoy with the built filter, from the project's own `envoy/bootstrap.yaml` with free ports put in.
//!
//! In: where the model server listens, the filter's configuration. Out: the ports, the stats page. It is always stopped.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::client::Request;
use crate::page::Page;
use crate::tools::{self, Process, poll};

/// Envoy compiles the filter for each worker before it is ready; a loaded machine takes its time.
const START: Duration = Duration::from_secs(60);

/// What differs from the bootstrap.
#[derive(Debug, Clone)]
pub struct Options {
    /// Host of the model server, as the bootstrap would name it.
    pub upstream_host: String,
    /// Port of the model server.
    pub upstream: u16,
    /// Where clients are to go; 0: any free port.
    pub listener: u16,
    /// Where the admin page is to be; 0: any free port.
    pub admin: u16,
    /// Port of the companion's gRPC service.
    pub companion: u16,
    /// The filter's configuration.
    pub config: String,
    /// Worker threads.
    pub workers: u32,
}

impl Options {
    /// Two workers, the filter's defaults.
    #[must_use]
    pub fn to(upstream: u16) -> Self {
        // Port 9: nothing answers there, which is what an absent companion is.
        Self {
            upstream_host: "127.0.0.1".to_owned(),
            upstream,
            listener: 0,
            admin: 0,
            companion: 9,
            config: "{}".to_owned(),
            workers: 2,
        }
    }

    /// With this configuration of the filter.
    #[must_use]
    pub fn config(mut self, json: &str) -> Self {
        json.clone_into(&mut self.config);
        self
    }
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    /// Where clients go.
    pub port: u16,
    /// Where the stats are.
    pub admin: u16,
    process: Process,
    folder: TempDir,
}

impl Envoy {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// If it does not come up: then with the end of its log.
    pub fn start(options: &Options) -> Result<Self> {
        Self::start_from(&fs::read_to_string(tools::root().join("envoy/bootstrap.yaml"))?, options)
    }

    /// The same from another text of the bootstrap.
    ///
    /// # Errors
    /// If it does not come up: then with the end of its log.
    pub fn start_from(text: &str, options: &Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("envoy.yaml");
        fs::write(&config, bootstrap(text, options)?)?;
        let address = folder.path().join("admin");
        let log = File::create(folder.path().join("log"))?;
        let child = tools::child(&tools::envoy()?)
            .arg("--config-path")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&address)
            .args(["--use-dynamic-base-id", "--log-level", "warning", "--concurrency", &options.workers.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting Envoy")?;
        let mut envoy = Self { port: 0, admin: 0, process: Process(child), folder };
        let ready = poll(START, || {
            if envoy.process.ended() {
                return Some(false);
            }
            envoy.admin = fs::read_to_string(&address).ok()?.rsplit(':').next()?.trim().parse().ok()?;
            (envoy.ask("/ready").ok()? == "LIVE\n").then_some(true)
        });
        if ready != Some(true) {
            bail!("Envoy did not become ready; the end of its log:\n{}", envoy.log());
        }
        envoy.port = envoy.listener_port()?;
        Ok(envoy)
    }

    /// What its admin says at `path`.
    ///
    /// # Errors
    /// If it does not answer with 200.
    pub fn ask(&self, path: &str) -> Result<String> {
        let answer = Request::bare("GET", path).header("connection", "close").send(self.admin)?;
        if answer.status != 200 {
            bail!("admin {path}: {}", answer.status);
        }
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// The stats page that Prometheus would read.
    ///
    /// # Errors
    /// If the admin does not answer.
    pub fn page(&self) -> Result<Page> {
        Ok(Page::parse(&self.ask("/stats/prometheus")?))
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().rev().take(40).rev().copied().collect::<Vec<_>>().join("\n")
    }

    /// Has a VM of the filter failed since the start?
    ///
    /// # Errors
    /// If the admin does not answer.
    pub fn vm_failures(&self) -> Result<f64> {
        let page = self.page()?;
        let failures = page.samples.iter().filter(|sample| sample.name.contains("vm_reload"));
        Ok(failures.map(|sample| sample.value).sum())
    }

    /// Is it still running?
    pub fn alive(&mut self) -> bool {
        !self.process.ended()
    }

    fn listener_port(&self) -> Result<u16> {
        let listeners: serde_json::Value = serde_json::from_str(&self.ask("/listeners?format=json")?)?;
        listeners
            .pointer("/listener_statuses/0/local_address/socket_address/port_value")
            .and_then(serde_json::Value::as_u64)
            .and_then(|port| u16::try_from(port).ok())
            .context("Envoy names no listener port")
    }
}

/// The project's bootstrap with this run's ports, filter and configuration.
fn bootstrap(text: &str, options: &Options) -> Result<String> {
    let mut text = text.to_owned();
    let filter = tools::filter()?;
    let changes = [
        ("port_value: 9901", format!("port_value: {}", options.admin)),
        ("port_value: 10000", format!("port_value: {}", options.listener)),
        (
            "address: 127.0.0.1, port_value: 8000",
            format!("address: {}, port_value: {}", options.upstream_host, options.upstream),
        ),
        ("port_value: 9002", format!("port_value: {}", options.companion)),
        ("filename: dist/tally.wasm", format!("filename: {}", filter.display())),
        ("value: \"{}\"", format!("value: {}", serde_json::to_string(&options.config)?)),
    ];
    for (from, to) in changes {
        if text.matches(from).count() != 1 {
            bail!("envoy/bootstrap.yaml should hold `{from}` once");
        }
        text = text.replace(from, &to);
    }
    Ok(text)
}
