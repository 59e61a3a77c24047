//! `tallyd`, Tally's companion: pool metrics, flow control, one authenticated metrics page.
//!
//! One page: read the command line, start the runtime, run the chosen command until a signal.

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(name = "tallyd", about = "Tally's companion")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulate flow control in virtual time, with and without it, from a file of traffic.
    FlowSim(tallyd::flow::sim::Args),
    /// Keep a model server's LoRA adapters as a ConfigMap says.
    LoraSyncer(tallyd::lora::Args),
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let shutdown = CancellationToken::new();
    let (stop, mut term) = (shutdown.clone(), signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stop.cancel();
    });
    match cli.command {
        Command::FlowSim(args) => tallyd::flow::sim::run(&args),
        Command::LoraSyncer(args) => tallyd::lora::run(args, shutdown).await,
    }
}
