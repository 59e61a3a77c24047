//! A real `tallyd serve`.
//!
//! In: a configuration file's text and flags. Out: its port and its answers. It is always stopped.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::client::{Answer, Request};
use crate::page::Page;
use crate::tools::{self, Process, poll};

const START: Duration = Duration::from_secs(30);

/// A running companion.
#[derive(Debug)]
pub struct Companion {
    /// Where its pages are.
    pub port: u16,
    process: Process,
    folder: TempDir,
}

impl Companion {
    /// Starts it on a free port and waits until it serves.
    ///
    /// # Errors
    /// If it does not come up: then with its log.
    pub fn start(config: &str, flags: &[&str]) -> Result<Self> {
        Self::launch(0, config, flags, &[])
    }

    /// The same with these variables in its environment.
    ///
    /// # Errors
    /// If it does not come up: then with its log.
    pub fn start_with(config: &str, flags: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        Self::launch(0, config, flags, environment)
    }

    /// The same on this port.
    ///
    /// # Errors
    /// If it does not come up: then with its log.
    pub fn start_at(port: u16, config: &str, flags: &[&str]) -> Result<Self> {
        Self::launch(port, config, flags, &[])
    }

    fn launch(port: u16, config: &str, flags: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("tallyd.yaml"), config)?;
        let address = folder.path().join("address");
        let mut command = tools::child(&tools::tallyd()?);
        command.args(["serve", "--metrics-port", &port.to_string()]);
        if !config.is_empty() {
            command.arg("--config").arg(folder.path().join("tallyd.yaml"));
        }
        command.arg("--address-file").arg(&address).args(flags);
        // What the machine says of a cluster is no part of a test.
        command.env_remove("KUBERNETES_SERVICE_HOST").env_remove("KUBECONFIG").env_remove("RUST_LOG");
        command.envs(environment.iter().copied());
        let log = File::create(folder.path().join("log"))?;
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("starting tallyd")?;
        let mut companion = Self { port: 0, process: Process(child), folder };
        let ready = poll(START, || {
            if companion.process.ended() {
                return Some(None);
            }
            Some(Some(fs::read_to_string(&address).ok()?.trim().rsplit(':').next()?.parse().ok()?))
        });
        companion.port = match ready {
            Some(Some(port)) => port,
            _ => bail!("tallyd did not come up; its log:\n{}", companion.log()),
        };
        Ok(companion)
    }

    /// Answer to a GET, with a bearer token if one is given.
    ///
    /// # Errors
    /// If there is no connection.
    pub fn get(&self, path: &str, token: Option<&str>) -> Result<Answer> {
        let mut request = Request::bare("GET", path).header("connection", "close");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        Ok(request.send(self.port)?)
    }

    /// The metrics page, read without a token.
    ///
    /// # Errors
    /// If the answer is not 200.
    pub fn page(&self) -> Result<Page> {
        let answer = self.get("/metrics", None)?;
        if answer.status != 200 {
            bail!("/metrics: {}", answer.status);
        }
        Ok(Page::parse(&String::from_utf8_lossy(&answer.body)))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The folder with its configuration, `tallyd.yaml`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}
