//! `make soak`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_integration::soak::{Settings, run};
use tally_integration::{reliability, tools};

const MILLION: u64 = 1_000_000;

fn main() -> Result<()> {
    let settings = Settings {
        requests: number("REQUESTS", MILLION)?,
        scrapes: number("SCRAPES", MILLION)?,
        every: Duration::from_secs(2),
    };
    let report = run(settings)?;
    println!("{}", report.table());
    if settings.requests >= MILLION && settings.scrapes >= MILLION {
        let part = format!("{}\n\n{}\n![The soak](soak.svg)\n", reliability::machine()?, report.table());
        reliability::write("soak", &part)?;
        std::fs::write(tools::root().join("docs/soak.svg"), report.picture())?;
    }
    ensure!(report.is_good(), "something grew, or was not counted once");
    Ok(())
}

fn number(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{name}={text}: expected a whole number")),
        _ => Ok(default),
    }
}
