//! A real Envoy with the built filter, from the project's own `envoy/bootstrap.yaml` with free ports put in.
//!
//! In: where the model server listens, the filter's configuration. Out: the ports, the stats page. It is always stopped.

use std::fs::{self, File};
use std::path::Path;
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
    /// Further changes to the bootstrap, as (what stands there, what is to stand there).
    pub edits: Vec<(String, String)>,
    /// The listener comes from a file that [`Envoy::update_listener`] can change while Envoy runs.
    pub is_listener_dynamic: bool,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// Further arguments.
    pub arguments: Vec<String>,
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
            edits: Vec::new(),
            is_listener_dynamic: false,
            environment: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// With this text of the bootstrap changed, wherever it stands.
    #[must_use]
    pub fn edit(mut self, from: &str, to: &str) -> Self {
        self.edits.push((from.to_owned(), to.to_owned()));
        self
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
        Self::start_from(&own_bootstrap()?, options)
    }

    /// The same from another text of the bootstrap.
    ///
    /// # Errors
    /// If it does not come up: then with the end of its log.
    pub fn start_from(text: &str, options: &Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("envoy.yaml");
        let mut text = bootstrap(text, options)?;
        if options.is_listener_dynamic {
            let (rest, listener) = cut_listener(&text, folder.path())?;
            fs::write(folder.path().join("lds.yaml"), listener)?;
            text = rest;
        }
        fs::write(&config, text)?;
        let address = folder.path().join("admin");
        let log = File::create(folder.path().join("log"))?;
        let child = tools::child(&tools::envoy()?)
            .arg("--config-path")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&address)
            // Without hot restart Envoy wants no shared memory: /dev/shm is read-only or absent in some containers.
            .args(["--disable-hot-restart", "--log-level", "warning", "--concurrency", &options.workers.to_string()])
            .args(&options.arguments)
            .envs(options.environment.iter().map(|(name, value)| (name, value)))
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

    /// Gives it the listener of these options, in one step as a control plane does, and waits until it is taken.
    ///
    /// # Errors
    /// If it is refused, or Envoy was not started with a dynamic listener.
    pub fn update_listener(&self, options: &Options) -> Result<()> {
        self.offer_listener(options, "envoy_listener_manager_lds_update_success")
    }

    /// Gives it the listener of these options and waits until this counter of its own has gone up.
    ///
    /// # Errors
    /// If it does not, or Envoy was not started with a dynamic listener.
    pub fn offer_listener(&self, options: &Options, counter: &str) -> Result<()> {
        let mut options = options.clone();
        options.listener = self.port;
        let (_, listener) = cut_listener(&bootstrap(&own_bootstrap()?, &options)?, self.folder.path())?;
        let updates = |envoy: &Self| -> Result<f64> { Ok(envoy.page()?.total(counter, &[])) };
        let before = updates(self)?;
        let draft = self.folder.path().join("lds.draft");
        fs::write(&draft, listener)?;
        fs::rename(&draft, self.folder.path().join("lds.yaml"))?;
        let taken = poll(START, || (updates(self).ok()? > before).then_some(()));
        if taken.is_none() {
            bail!("Envoy did not count the listener as {counter}; the end of its log:\n{}", self.log());
        }
        Ok(())
    }

    /// Resident memory, in bytes.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
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

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
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

/// The project's bootstrap as it stands.
fn own_bootstrap() -> Result<String> {
    Ok(fs::read_to_string(tools::root().join("envoy/bootstrap.yaml"))?)
}

/// A bootstrap with this run's ports, filter and configuration.
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
    for (from, to) in &options.edits {
        if !text.contains(from) {
            bail!("envoy/bootstrap.yaml should hold `{from}`");
        }
        text = text.replace(from, to);
    }
    Ok(text)
}

/// The bootstrap with its listener taken out, and the listener as a file of the listener discovery service.
fn cut_listener(text: &str, folder: &Path) -> Result<(String, String)> {
    let (head, rest) = text.split_once("  listeners:\n").context("no listeners")?;
    let (listener, clusters) = rest.split_once("\n  clusters:\n").context("no clusters")?;
    let head = head.replace("static_resources:\n", "");
    let discovery = format!(
        "node: {{ id: test, cluster: test }}\ndynamic_resources:\n  lds_config:\n    path_config_source: {{ path: {} }}\n",
        folder.join("lds.yaml").display()
    );
    let listener = listener.replacen(
        "  - name:",
        "- \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\n    name:",
        1,
    );
    let listener: String =
        listener.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect();
    Ok((format!("{head}{discovery}static_resources:\n  clusters:\n{clusters}"), format!("resources:\n{listener}")))
}
