//! Tokens from a file, one a line, so that a new one can be added before the old one is taken away.
//!
//! In: the file, read again when it changes. Out: is this one of them? While the file can't be read or holds no token,
//! nobody's is.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use subtle::ConstantTimeEq;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

use crate::pprof;
use crate::watch::{self, Newest};

/// The tokens of one file.
#[derive(Debug)]
pub(crate) struct TokenFile {
    newest: Receiver<Newest>,
}

impl TokenFile {
    /// Reads it once, so that a wrong path stops the start, then goes on looking.
    pub(super) async fn start(path: PathBuf, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let newest = watch::watch(path, LOOK_EVERY, shutdown);
        let mut changes = newest.clone();
        match &*changes.wait_for(Option::is_some).await? {
            Some(Ok(text)) if tokens(text).next().is_none() => bail!("auth.token_file: {name}: no token in it"),
            Some(Err(problem)) => bail!("auth.token_file: {problem}"),
            _ => {}
        }
        pprof::spawn("token file", async move {
            while changes.changed().await.is_ok() {
                match &*changes.borrow_and_update() {
                    Some(Ok(text)) => tracing::info!(tokens = tokens(text).count(), "token file read"),
                    Some(Err(problem)) => tracing::error!(problem, "token file unreadable: all requests are refused"),
                    None => {}
                }
            }
        });
        Ok(Self { newest })
    }

    /// Is this one of the tokens? Takes the same time whichever one it is, and whether it is one.
    pub(super) fn holds(&self, token: &str) -> bool {
        let newest = self.newest.borrow();
        let Some(Ok(text)) = &*newest else { return false };
        let mut is_known = subtle::Choice::from(0);
        for known in tokens(text) {
            is_known |= known.as_bytes().ct_eq(token.as_bytes());
        }
        is_known.into()
    }
}

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// A new token counts, and an old one stops counting, within this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(text: &str) -> TokenFile {
        TokenFile { newest: tokio::sync::watch::channel(Some(Ok(text.to_owned()))).1 }
    }

    #[test]
    fn each_line_is_a_token_and_nothing_else_is() {
        let file = holding("# old\none \n\ntwo\r\n");
        assert!(file.holds("one") && file.holds("two"));
        for wrong in ["", "on", "onee", "# old", "one\ntwo", "three"] {
            assert!(!file.holds(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn an_empty_or_unreadable_file_lets_nobody_in() {
        assert!(!holding("").holds(""));
        let file = TokenFile { newest: tokio::sync::watch::channel(Some(Err("gone".to_owned()))).1 };
        assert!(!file.holds("one"));
    }
}
