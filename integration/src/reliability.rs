//! docs/RELIABILITY.md: each tool writes its own part, between its marks; the rest is written by hand and holds no figure.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::tools;

const DOCUMENT: &str = "docs/RELIABILITY.md";

/// Replaces what stands between `<!-- written by make TOOL -->` and `<!-- end of make TOOL -->`.
///
/// # Errors
/// If the document has no such marks, or cannot be written.
pub fn write(tool: &str, part: &str) -> Result<()> {
    let path = tools::root().join(DOCUMENT);
    let text = fs::read_to_string(&path).context(DOCUMENT)?;
    let (begin, end) = (format!("<!-- written by make {tool} -->\n"), format!("<!-- end of make {tool} -->"));
    let (before, rest) = text.split_once(&begin).with_context(|| format!("{DOCUMENT} has no {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("{DOCUMENT} has no {end}"))?;
    fs::write(&path, format!("{before}{begin}\n{part}\n{end}{after}"))?;
    eprintln!("  written: {DOCUMENT}");
    Ok(())
}

/// The machine and what ran on it, in one sentence.
///
/// # Errors
/// If the machine cannot be named.
pub fn machine() -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(" unknown");
    let load = fs::read_to_string("/proc/loadavg")?;
    let said = Command::new(tools::envoy()?).arg("--version").output()?;
    let envoy = String::from_utf8_lossy(&said.stdout).trim().rsplit("version: ").next().unwrap_or_default().to_owned();
    let filter = fs::metadata(tools::filter()?)?.len();
    let said = Command::new(tools::tallyd()?).arg("--version").output()?;
    let tallyd = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let build = if tools::tallyd()?.components().any(|part| part.as_os_str() == "debug") { "debug" } else { "release" };
    Ok(format!(
        "{} cores of {}, load average at the end {}; Envoy {envoy} with 2 workers; tally.wasm of {filter} bytes; {tallyd} ({build} build).",
        cpuinfo.matches("processor\t").count(),
        model.trim_start_matches([' ', '\t', ':']),
        load.split(' ').next().unwrap_or_default(),
    ))
}
