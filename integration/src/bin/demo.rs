//! `make demo`.

use anyhow::Result;
use tally_integration::demo::{Upstream, run};

/// Long enough for the slowest recorded answer and for a readable histogram.
const SECONDS: u64 = 8;

fn main() -> Result<()> {
    let seconds = std::env::var("DEMO_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let keep = std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty() && keep != "0");
    run(&Upstream::from_environment()?, seconds, keep)
}
