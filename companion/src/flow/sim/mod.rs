//! The simulator: the companion's own flow control in virtual time, with and without it side by side.
//!
//! In: a file of traffic, servers and configuration. Out: a table on standard output, and a picture.
//! It opens no socket and takes seconds for a million requests.

pub mod picture;
mod random;
pub mod report;
pub mod scenario;
mod servers;
pub mod tally;
pub mod world;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use scenario::Scenario;

/// What to simulate.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// YAML file of traffic classes, model servers and flow control's configuration
    file: PathBuf,
    /// Write a picture of both runs here
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
}

/// Runs a file with and without flow control and says what came of it.
///
/// # Errors
/// When the file cannot be read or makes no sense, or the picture cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let name = args.file.display();
    let text = std::fs::read_to_string(&args.file).with_context(|| format!("{name}"))?;
    let scenario = Scenario::parse(&text).map_err(|error| anyhow!("{name}: {error}"))?;
    let start = Instant::now();
    let without = world::run(&scenario, false).with_context(|| format!("{name}: flow_control"))?;
    let with = world::run(&scenario, true).with_context(|| format!("{name}: flow_control"))?;
    println!("# {}\n\n## Without flow control\n\n{}", scenario.title, report::table(&scenario, &without));
    println!("## With flow control\n\n{}", report::table(&scenario, &with));
    let requests: u64 = with.classes.iter().map(|class| class.asked).sum();
    // On standard error: the same file gives the same table, but not in the same time.
    eprintln!("{requests} requests, twice, in {:.1} s", start.elapsed().as_secs_f64());
    if let Some(path) = &args.svg {
        std::fs::write(path, picture::svg(&scenario, &without, &with))
            .with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}
