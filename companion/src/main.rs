//! `tallyd`, Tally's companion: pool metrics, flow control, one authenticated metrics page.
//!
//! One page: read the command line, start the runtime, run the chosen command until a signal.

use anyhow::Result;

fn main() -> Result<()> {
    Ok(())
}
