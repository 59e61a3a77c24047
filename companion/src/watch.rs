//! The file, watched by its content: a ConfigMap volume is swapped by a symlink, which other means miss.
//!
//! In: a path. Out: a channel with the newest text, or why there is none. It never reads more than a cap.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::pprof;

/// Newest text of the file, or why it can't be read; `None` before the first look.
pub(crate) type Newest = Option<Result<String, String>>;

/// Looks at the file until told to stop; sends only when the content has changed.
pub(crate) fn watch(path: PathBuf, every: Duration, shutdown: CancellationToken) -> watch::Receiver<Newest> {
    let (sender, receiver) = watch::channel(None);
    pprof::spawn("file watch", async move {
        let mut ticks = tokio::time::interval(every);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let here = path.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || read(&here)).await else { continue };
            sender.send_if_modified(|newest| {
                let is_new = newest.as_ref() != Some(&now);
                *newest = Some(now);
                is_new
            });
        }
    });
    receiver
}

fn read(path: &Path) -> Result<String, String> {
    let name = path.display();
    let file = std::fs::File::open(path).map_err(|error| format!("{name}: {error}"))?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| format!("{name}: {error}"))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{name}: longer than {MAX_FILE_BYTES} bytes"));
    }
    Ok(text)
}

/// A ConfigMap holds at most 1 MiB; a longer file is an error.
const MAX_FILE_BYTES: u64 = 1 << 20;
