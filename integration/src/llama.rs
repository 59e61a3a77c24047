//! A real llama.cpp server (`scripts/llama.sh` builds one and prints its two paths).
//!
//! In: `LLAMA_SERVER`, the program, and `LLAMA_MODEL`, a GGUF file. Out: the running server. It is always ended.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::client::Request;
use crate::tools::{self, Process, poll};

/// Loading a model from disk.
const START: Duration = Duration::from_secs(120);
/// The model's name in requests and labels.
pub const MODEL: &str = "gemma-3-270m";
/// Requests that it runs at once.
pub const SLOTS: u32 = 4;

/// Where it is.
#[derive(Clone, Debug)]
pub struct Llama {
    /// The program.
    pub server: PathBuf,
    /// The GGUF file.
    pub model: PathBuf,
}

impl Llama {
    /// As the environment says.
    ///
    /// # Errors
    /// If it does not.
    pub fn from_environment() -> Result<Self> {
        let path = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .with_context(|| format!("{name} is not set: see scripts/llama.sh"))
        };
        Ok(Self { server: path("LLAMA_SERVER")?, model: path("LLAMA_MODEL")? })
    }

    /// Starts it at a free port and waits until it is healthy.
    ///
    /// # Errors
    /// If it does not become so.
    pub fn start(&self) -> Result<(Process, u16)> {
        let port = tools::free_port()?;
        let mut command = tools::child(&self.server);
        command.arg("--model").arg(&self.model).args(["--alias", MODEL, "--host", "127.0.0.1"]);
        command.args([
            "--port",
            &port.to_string(),
            "--parallel",
            &SLOTS.to_string(),
            "--ctx-size",
            "4096",
            "--metrics",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process(command.spawn().context("starting llama-server")?);
        let healthy = poll(START, || {
            if process.ended() {
                return Some(false);
            }
            let answer = Request::bare("GET", "/health").header("connection", "close").send(port).ok()?;
            (answer.status == 200).then_some(true)
        });
        if healthy != Some(true) {
            bail!("llama-server did not become healthy");
        }
        Ok((process, port))
    }
}
