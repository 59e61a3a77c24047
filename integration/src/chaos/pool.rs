//! The pool's endpoints as tallyd scrapes them: some servers whose pages and whose place in the list a fault can change.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::admin::{Admin, Says};

/// Endpoints of the pool.
pub(crate) const ENDPOINTS: usize = 3;

/// Running endpoints, and the file that lists them.
#[derive(Debug)]
pub(crate) struct Pool {
    endpoints: Vec<(Admin, u16)>,
    file: PathBuf,
}

/// The page of a server with so many requests waiting.
fn page(waiting: u64) -> String {
    format!(
        "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{model_name=\"m\"}} {waiting}\n\
         # TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{model_name=\"m\"}} 0\n\
         # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{{model_name=\"m\"}} 0\n"
    )
}

impl Pool {
    /// Starts them idle; the file is in this folder.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let endpoints = (0..ENDPOINTS).map(|_| Admin::tcp(Says::Page(page(0)))).collect::<Result<_>>()?;
        let pool = Self { endpoints, file: folder.join("endpoints") };
        pool.list(ENDPOINTS)?;
        Ok(pool)
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Only the first so many are in the pool.
    pub(crate) fn list(&self, number: usize) -> Result<()> {
        let lines: String = self.endpoints.iter().take(number).map(|(_, port)| format!("127.0.0.1:{port}\n")).collect();
        let draft = self.file.with_extension("draft");
        fs::write(&draft, lines)?;
        Ok(fs::rename(draft, &self.file)?)
    }

    /// So many requests wait in each.
    pub(crate) fn all_have_waiting(&self, waiting: u64) {
        for (admin, _) in &self.endpoints {
            admin.say(Says::Page(page(waiting)));
        }
    }

    /// This one answers so from now on.
    pub(crate) fn say(&self, endpoint: usize, how: u8) {
        let says = match how % 6 {
            0 => Says::Half(page(0)),
            1 => Says::Nothing,
            2 => Says::Status(500),
            3 => Says::Page("\u{0}not a page {{{".to_owned()),
            4 => Says::Page(page(100)),
            _ => Says::Page(page(0)),
        };
        if let Some((admin, _)) = self.endpoints.get(endpoint) {
            admin.say(says);
        }
    }
}
