//! Endpoints from a file, looked at by content: a ConfigMap volume is swapped by a symlink, which other means miss.
//!
//! In: a path. Out: the set in it, when it changes. A file that can't be read or has a bad line leaves the last set as it
//! is, with one warning for each new fault. It never reads more than a cap.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::{LOOK_EVERY, Target, Targets, publish};

pub(super) async fn run(path: PathBuf, default_port: u16, pool: Arc<str>, sender: watch::Sender<Targets>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut last = None;
    loop {
        ticks.tick().await;
        let here = path.clone();
        let Ok(now) = tokio::task::spawn_blocking(move || read(&here)).await else { continue };
        if last.as_ref() == Some(&now) {
            continue;
        }
        match now.as_deref().map_err(String::clone).and_then(|text| parse(text, default_port)) {
            Ok(targets) => publish(&sender, targets),
            Err(error) => {
                tracing::warn!(%pool, path = %path.display(), %error, "the endpoints stay as they were");
            }
        }
        last = Some(now);
    }
}

/// One endpoint a line; `#` begins a comment.
fn parse(text: &str, default_port: u16) -> Result<Vec<Target>, String> {
    let mut targets = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let target = Target::parse(entry, default_port);
        targets.push(target.ok_or_else(|| format!("line {}: expected host:port, found \"{entry}\"", index + 1))?);
    }
    Ok(targets)
}

fn read(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES { Err(format!("longer than {MAX_FILE_BYTES} bytes")) } else { Ok(text) }
}

/// A ConfigMap holds at most 1 MiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_an_endpoint_a_line_and_its_bad_line_is_named() {
        let names = |text: &str| {
            parse(text, 8000).map(|all| all.iter().map(|target| target.name.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(
            names("# pool\n10.0.0.1:80 # first\n\n[::1]:9\nhost\n").unwrap(),
            ["10.0.0.1:80", "[::1]:9", "host:8000"]
        );
        assert_eq!(names("a:1\nb:x\n").unwrap_err(), "line 2: expected host:port, found \"b:x\"");
        for bad in ["a:0", "a:70000", "http://a", "a:", "[::1", "[x]:1", "a b"] {
            assert!(names(bad).is_err(), "{bad}");
        }
    }
}
