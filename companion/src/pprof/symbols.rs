//! Addresses of the running program as functions, files and lines.

use std::collections::HashMap;
use std::ffi::c_void;

use super::profile::{Place, SourceLine};

/// Looks addresses up, each once.
#[derive(Debug, Default)]
pub(super) struct Symbols(HashMap<u64, Place>);

impl Symbols {
    /// What is at a return address; an unknown one keeps its number.
    pub(super) fn place(&mut self, address: u64) -> Place {
        self.0.entry(address).or_insert_with(|| look_up(address)).clone()
    }
}

impl Drop for Symbols {
    /// The library keeps the whole debug information in memory to be quick the next time: tens of megabytes.
    fn drop(&mut self) {
        forget();
    }
}

/// Gives that memory back.
pub(super) fn forget() {
    backtrace::clear_symbol_cache();
}

fn look_up(address: u64) -> Place {
    let mut lines = Vec::new();
    let Ok(number) = usize::try_from(address) else { return Place::default() };
    // A return address: the library looks at the call before it.
    backtrace::resolve(number as *mut c_void, |symbol| {
        lines.push(SourceLine {
            // `{:#}` leaves out the hash at the end of a Rust name.
            function: symbol.name().map_or_else(|| format!("{address:#x}"), |name| format!("{name:#}")),
            file: symbol.filename().map_or_else(String::new, |path| path.display().to_string()),
            line: symbol.lineno().unwrap_or(0),
        });
    });
    Place { address, lines }
}

/// `symbol`: names for the addresses of a POST, `0x10+0x20`, a line each (`0x10 name`).
pub(super) async fn answer(body: String) -> String {
    // Names come out of the debug information: not on a thread that answers.
    let named = tokio::task::spawn_blocking(move || {
        let mut symbols = Symbols::default();
        let mut page = "num_symbols: 1\n".to_owned();
        for word in body.split(['+', '\n']).take(MAX_ADDRESSES) {
            let word = word.trim();
            let Ok(address) = u64::from_str_radix(word.trim_start_matches("0x"), 16) else { continue };
            if let Some(line) = symbols.place(address).lines.last() {
                page.push_str(&format!("{word} {}\n", line.function));
            }
        }
        page
    });
    named.await.unwrap_or_default()
}

/// Further ones are left out.
const MAX_ADDRESSES: usize = 10_000;
