//! `tallyd`, Tally's companion: pool metrics, flow control, one authenticated metrics page.
//!
//! One page: read the command line, start the runtime, run the chosen command until a signal.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};
use tallyd::config::{Config, LogFormat, Logging, ServeArgs};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// jemalloc, for its samples: which code holds memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's options, read at its start (`malloc_conf` in jemalloc(3)): one sample for 2 MiB, counted from the start on;
/// freed pages go back within half a second, not ten, because a burst of requests that come to wait frees as much as it keeps.
/// The environment's `MALLOC_CONF=prof:false` turns it off. A pointer to text that ends with NUL, as C has it.
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: Option<&'static u8> =
    b"prof:true,prof_active:true,prof_accum:true,lg_prof_sample:21,dirty_decay_ms:500,muzzy_decay_ms:0\0".first();

#[derive(Parser)]
#[command(name = "tallyd", about = "Tally's companion", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look at a configuration without using it.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say which rights in Kubernetes are missing, as rules ready to apply.
    Doctor(tallyd::doctor::Args),
    /// Simulate flow control in virtual time, with and without it, from a file of traffic.
    FlowSim(tallyd::flow::sim::Args),
    /// Keep a model server's LoRA adapters as a ConfigMap says.
    LoraSyncer(tallyd::lora::Args),
    /// Serve the metrics page, profiles and health on one port.
    Serve(Box<ServeArgs>),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say whether `tallyd serve --config FILE` would take it, and if not, where it is wrong.
    Check {
        /// The YAML file.
        file: PathBuf,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Config(ConfigCommand::Check { file }) => {
            let args = ServeArgs { config: Some(file), ..ServeArgs::default() };
            let config = Config::load(&args).map_err(|problem| anyhow!(problem))?;
            for doubt in config.doubts() {
                println!("warning: {doubt}");
            }
            println!("ok: {}", config.summary());
            Ok(())
        }
        Command::Doctor(args) => run(|_| tallyd::doctor::run(args)),
        Command::FlowSim(args) => tallyd::flow::sim::run(&args),
        Command::LoraSyncer(args) => {
            let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
            log(&Logging { format: LogFormat::Text, filter });
            run(|shutdown| tallyd::lora::run(args, shutdown))
        }
        Command::Serve(args) => {
            let config = Config::load(&args).map_err(|problem| anyhow!(problem))?;
            log(&config.logging);
            for doubt in config.doubts() {
                tracing::warn!("{doubt}");
            }
            run(|shutdown| tallyd::serve::run(config, shutdown))
        }
    }
}

/// Runs a command until it ends or a signal ends it.
#[tokio::main]
async fn run<F: Future<Output = Result<()>>>(command: impl FnOnce(CancellationToken) -> F) -> Result<()> {
    let shutdown = CancellationToken::new();
    let (stop, mut term) = (shutdown.clone(), signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stop.cancel();
    });
    command(shutdown).await
}

fn log(logging: &Logging) {
    let filter = EnvFilter::try_new(&logging.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match logging.format {
        LogFormat::Json => lines.json().init(),
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
    }
}
