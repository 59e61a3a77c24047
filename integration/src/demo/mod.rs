//! The demonstration: real Envoy and filter, a model server, a mixed load, a table.
//!
//! In: where the model server is, how long to send. Out: text for a person. Its processes end with it.

mod load;
mod table;

use std::io::{IsTerminal, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::companion::Companion;
use crate::envoy::{Envoy, Options};
use crate::llama::Llama;
use crate::model_server::ModelServer;
use crate::tools::Process;

/// The filter writes its counts to Envoy's stats on a tick.
const LAST_TICK: Duration = Duration::from_secs(2);

/// Which model server stands behind Envoy.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// The recorded exchanges, in their own time.
    Recorded,
    /// A real llama.cpp.
    Llama(Llama),
    /// A server that is there already.
    At {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// The model server and what must live as long as it.
struct Behind {
    host: String,
    port: u16,
    recorded: bool,
    _process: Option<Process>,
}

impl Upstream {
    /// Reads `MODEL_SERVER`: empty, `llama`, or a URL without a path.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn from_environment() -> Result<Self> {
        let named = std::env::var("MODEL_SERVER").unwrap_or_default();
        match named.as_str() {
            "" | "recorded" => Ok(Self::Recorded),
            "llama" => Ok(Self::Llama(Llama::from_environment()?)),
            url => {
                let place = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
                let (host, port) = place.rsplit_once(':').unwrap_or((place, "80"));
                let port = port.parse().with_context(|| {
                    format!("MODEL_SERVER={url}: expected `llama` or http://host:port (without a path, without TLS)")
                })?;
                Ok(Self::At { host: host.to_owned(), port })
            }
        }
    }

    fn start(&self) -> Result<Behind> {
        let host = "127.0.0.1".to_owned();
        match self {
            Self::Recorded => {
                let port = ModelServer::start()?.port;
                println!("model server  recorded vLLM and llama.cpp exchanges, on 127.0.0.1:{port}");
                Ok(Behind { host, port, recorded: true, _process: None })
            }
            Self::Llama(llama) => {
                let (process, port) = llama.start()?;
                println!("model server  llama.cpp with {}, on 127.0.0.1:{port}", llama.model.display());
                Ok(Behind { host, port, recorded: false, _process: Some(process) })
            }
            Self::At { host, port } => {
                println!("model server  yours, at {host}:{port}");
                Ok(Behind { host: host.clone(), port: *port, recorded: false, _process: None })
            }
        }
    }
}

/// Runs it.
///
/// # Errors
/// If a process does not start or the page cannot be read.
pub fn run(upstream: &Upstream, seconds: u64, keep: bool) -> Result<()> {
    let server = upstream.start()?;
    let mut options = Options::to(server.port);
    options.upstream_host.clone_from(&server.host);
    options.listener = usual_or_any(10000);
    options.admin = usual_or_any(9901);
    let envoy = Envoy::start(&options)?;
    println!("envoy         127.0.0.1:{} with dist/tally.wasm, admin 127.0.0.1:{}", envoy.port, envoy.admin);
    let companion = Companion::start_at(usual_or_any(9090), &companion_config(&envoy, &server), &[])?;
    println!("tallyd        127.0.0.1:{}, reads Envoy's admin and the model server's metrics", companion.port);

    let mix = if server.recorded { load::recorded()? } else { load::live(envoy.port)? };
    let counts = load::send(envoy.port, &mix, Duration::from_secs(seconds), progress);
    progress(&format!("{counts}: done"));
    println!();

    let began = Instant::now();
    let mut page = envoy.page()?;
    // Until the last tick has come: two equal pages in a row say so.
    while began.elapsed() < LAST_TICK {
        std::thread::sleep(Duration::from_millis(300));
        let next = envoy.page()?;
        let settled = next.samples == page.samples;
        page = next;
        if settled {
            break;
        }
    }
    println!("\n{}", table::render(&page));
    println!("live page     http://127.0.0.1:{}/", companion.port);
    println!("all metrics   http://127.0.0.1:{}/metrics", companion.port);
    println!("from Envoy    http://127.0.0.1:{}/stats/prometheus", envoy.admin);
    if keep {
        println!("send more     http://127.0.0.1:{}/v1/chat/completions", envoy.port);
        println!("\nkeeps running until Ctrl-C");
        loop {
            std::thread::park();
        }
    }
    println!("everything is stopped now; `make demo KEEP=1` keeps it running");
    Ok(())
}

/// tallyd on loopback, open, with this Envoy and this model server on its page.
fn companion_config(envoy: &Envoy, server: &Behind) -> String {
    let (admin, Behind { host, port, .. }) = (envoy.admin, server);
    format!(
        "auth: {{ mode: none }}\n\
         envoy:\n- {{ name: demo, url: 'http://127.0.0.1:{admin}' }}\n\
         pools:\n- {{ name: demo, engine: auto, discovery: {{ static: ['{host}:{port}'] }}, \
         refresh_metrics_interval: 1s }}\n"
    )
}

/// Sends the recorded mix to this port for a while.
///
/// # Errors
/// If the recordings cannot be read.
pub fn send_recorded(port: u16, time: Duration) -> Result<()> {
    load::send(port, &load::recorded()?, time, |_| {});
    Ok(())
}

fn progress(text: &str) {
    if std::io::stdout().is_terminal() {
        print!("\rsending       {text}          ");
        let _ = std::io::stdout().flush();
    } else {
        println!("sending       {text}");
    }
}

/// The documented port if nobody has it, else any.
fn usual_or_any(port: u16) -> u16 {
    if TcpListener::bind(("127.0.0.1", port)).is_ok() { port } else { 0 }
}
