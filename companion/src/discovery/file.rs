//! Endpoints from a file, looked at by content.
//!
//! In: the newest text of the file. Out: the set in it. A file that can't be read or has a bad line leaves the last set as
//! it is, with one warning for each new fault.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{LOOK_EVERY, Target, Targets, publish};

pub(super) async fn run(
    path: PathBuf,
    default_port: u16,
    pool: Arc<str>,
    sender: watch::Sender<Targets>,
    shutdown: CancellationToken,
) {
    let mut texts = crate::watch::watch(path, LOOK_EVERY, shutdown);
    while texts.changed().await.is_ok() {
        let Some(newest) = texts.borrow_and_update().clone() else { continue };
        match newest.and_then(|text| parse(&text, default_port)) {
            Ok(targets) => publish(&sender, targets),
            Err(error) => tracing::warn!(%pool, %error, "the endpoints stay as they were"),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_an_endpoint_a_line_and_its_bad_line_is_named() {
        let names = |text: &str| {
            parse(text, 8000).map(|all| all.iter().map(|target| target.name.to_string()).collect::<Vec<_>>())
        };
        let text = "# pool\n10.0.0.1:80 # first\n\n[::1]:9\nhost\n";
        assert_eq!(names(text).unwrap(), ["10.0.0.1:80", "[::1]:9", "host:8000"]);
        assert_eq!(names("a:1\nb:x\n").unwrap_err(), "line 2: expected host:port, found \"b:x\"");
        for bad in ["a:0", "a:70000", "http://a", "a:", "[::1", "[x]:1", "a b"] {
            assert!(names(bad).is_err(), "{bad}");
        }
    }
}
