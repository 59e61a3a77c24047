//! `make chaos`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tally_integration::chaos::{Choice, Settings, run};
use tally_integration::reliability;

/// Long enough for each fault to come a few times.
const MINUTES: u64 = 3;

fn main() -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = number("SEED")?.unwrap_or(now);
    let seconds = match (number("HOURS")?, number("MINUTES")?) {
        (Some(hours), _) => hours * 3_600,
        (None, minutes) => minutes.unwrap_or(MINUTES) * 60,
    };
    eprintln!("  SEED={seed} repeats this schedule");
    let only = std::env::var("FAULT").unwrap_or_default();
    let report = run(Settings { seed, time: Duration::from_secs(seconds) }, &Choice::Named(only))?;
    println!("{}", report.table());
    // A failed run is written, too: the page is what was found.
    if std::env::var_os("FAULT").is_none() {
        let took = report.took.as_secs();
        let part = format!("{}\n\nSEED={seed}, {took} s.\n\n{}", reliability::machine()?, report.table());
        reliability::write("chaos", &part)?;
    }
    ensure!(report.is_good(), "seed {seed}:\n{}", report.troubles());
    Ok(())
}

fn number(name: &str) -> Result<Option<u64>> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => {
            Ok(Some(text.parse().with_context(|| format!("{name}={text}: expected a whole number"))?))
        }
        _ => Ok(None),
    }
}
