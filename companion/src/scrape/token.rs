//! The bearer token for the endpoints, from a file that Kubernetes renews.
//!
//! In: a path. Out: the header's value, read again every [`KEEP`]. It never logs what is in the file.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;

/// See the file's head.
#[derive(Debug)]
pub struct Token {
    path: PathBuf,
    kept: Mutex<Option<(HeaderValue, Instant)>>,
}

impl Token {
    /// Of this file; it is read at the first use.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, kept: Mutex::new(None) }
    }

    /// `Bearer …`; nothing if the file can't be read, and then the endpoint says what it thinks of that.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((value, read)) = &*kept
            && read.elapsed() < KEEP
        {
            return Some(value.clone());
        }
        // A small local file, once in a while: not worth a trip to another thread.
        let text = std::fs::read_to_string(&self.path).ok()?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", text.trim())).ok()?;
        value.set_sensitive(true);
        *kept = Some((value.clone(), Instant::now()));
        Some(value)
    }
}

/// A projected token is renewed many minutes before it expires.
const KEEP: Duration = Duration::from_secs(30);
