//! A real vLLM, started from an installed one (`scripts/vllm.sh` installs it and names it in the environment).
//!
//! In: `TALLY_VLLM_PYTHON`, a Python that can import vLLM, and `TALLY_VLLM_MODELS`, a folder with `tiny-llama` and
//! `tiny-lora-1` to `-3`. Out: the running server. It is always ended with all its processes.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::ModelServer;
use crate::client::Request;
use crate::tools::{self, poll};

/// Imports alone take a minute on a small machine, and minutes on a busy one.
const START: Duration = Duration::from_secs(600);
const END: Duration = Duration::from_secs(30);

/// The server, running or killed.
#[derive(Debug)]
pub struct Vllm {
    python: PathBuf,
    models: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Vllm {
    /// Starts it.
    ///
    /// # Errors
    /// If none is installed, or it does not come up.
    pub fn start() -> Result<Self> {
        let named = |name: &str| {
            let value = std::env::var_os(name).map(PathBuf::from);
            value.with_context(|| format!("{name} is not set: run `make test-vllm`"))
        };
        let (python, models) = (named("TALLY_VLLM_PYTHON")?, named("TALLY_VLLM_MODELS")?);
        let mut server = Self { python, models, port: tools::free_port()?, child: None };
        server.restart()?;
        Ok(server)
    }

    fn answers(&self) -> Option<()> {
        let answer = Request::bare("GET", "/health").header("connection", "close").send(self.port).ok()?;
        (answer.status == 200).then_some(())
    }
}

impl ModelServer for Vllm {
    fn port(&self) -> u16 {
        self.port
    }

    fn adapter(&self, number: u8) -> PathBuf {
        self.models.join(format!("tiny-lora-{number}"))
    }

    fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // The API server, the engine and its workers are one process group.
        Command::new("kill").args(["-KILL", "--"]).arg(format!("-{}", child.id())).status()?;
        child.wait()?;
        poll(END, || (!tools::listening(self.port, Duration::ZERO)).then_some(()))
            .context("the killed vLLM still listens")
    }

    fn restart(&mut self) -> Result<()> {
        let log = self.models.join("vllm.log");
        let mut command = tools::child(&self.python);
        command
            .args(["-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port"])
            .arg(self.port.to_string())
            .arg("--model")
            .arg(self.models.join("tiny-llama"))
            .args(["--served-model-name", "tiny-llama", "--dtype", "float32", "--enforce-eager"])
            .args(["--max-model-len", "1024", "--max-num-seqs", "4", "--num-gpu-blocks-override", "64"])
            .args(["--enable-lora", "--max-loras", "2", "--max-lora-rank", "8"])
            .envs([
                ("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "True"),
                ("HF_HUB_OFFLINE", "1"),
                ("VLLM_NO_USAGE_STATS", "1"),
                ("DO_NOT_TRACK", "1"),
                ("VLLM_TARGET_DEVICE", "cpu"),
                ("VLLM_CPU_KVCACHE_SPACE", "1"),
                // Spinning threads on few cores make it ten times slower.
                ("OMP_NUM_THREADS", "1"),
                ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
                // No compiler at the first request.
                ("TORCHDYNAMO_DISABLE", "1"),
            ])
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .process_group(0);
        let child = self.child.insert(command.spawn().with_context(|| format!("{}", self.python.display()))?);
        let pid = child.id();
        if poll(START, || self.answers()).is_none() {
            bail!("vLLM ({pid}) does not serve; its log is {}", log.display());
        }
        Ok(())
    }

    fn ask(&self, model: &str) -> Result<Option<(u16, String)>> {
        let body = serde_json::json!({ "model": model, "prompt": "one two", "max_tokens": 12, "temperature": 0 });
        let request = Request::post("/v1/completions", body.to_string()).header("connection", "close");
        let answer = request.send(self.port)?;
        let page: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let text = page.pointer("/choices/0/text").and_then(serde_json::Value::as_str).unwrap_or_default();
        Ok(Some((answer.status, text.to_owned())))
    }
}

impl Drop for Vllm {
    fn drop(&mut self) {
        // Nothing else can be done about a failure here.
        let _ = self.kill();
    }
}
