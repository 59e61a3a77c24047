//! Where the processor's time goes: stacks taken by a timer that runs while the process does.
//!
//! In: how long, how often. Out: a profile or a flame graph. One at a time, as there is one timer. Dropping the future
//! stops the timer. The unwinder takes no locks and no memory, so that it may interrupt anything.

use std::collections::HashMap;
use std::time::Duration;

use pprof::{Frames, ProfilerGuard, ProfilerGuardBuilder, UnresolvedReport};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::profile::{Builder, Place, SourceLine};
use super::symbols;

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Somebody else is taking one.
    #[error("another CPU profile is being taken; there is one timer, so try again when it is done")]
    Busy,
    /// The profiler says no.
    #[error("no CPU profile can be taken here (it needs a writable temporary folder): {0}")]
    Profiler(#[from] pprof::Error),
    /// The task that names the functions failed.
    #[error("the profile could not be written")]
    Write,
}

/// Raw stacks with their counts.
pub(super) struct Stacks {
    report: UnresolvedReport,
    hz: i32,
    took: Duration,
}

/// Takes stacks for a while.
pub(super) async fn record(seconds: Duration, hz: i32) -> Result<Stacks, Fault> {
    let _turn: SemaphorePermit<'_> = TURN.try_acquire().map_err(|_| Fault::Busy)?;
    let guard: ProfilerGuard<'_> = ProfilerGuardBuilder::default().frequency(hz).build()?;
    let began = tokio::time::Instant::now();
    tokio::time::sleep(seconds).await;
    let report = guard.report().build_unresolved()?;
    Ok(Stacks { report, hz, took: began.elapsed() })
}

impl Stacks {
    /// For `go tool pprof`. Names functions: not on a thread that answers.
    pub(super) fn profile(self) -> Result<Vec<u8>, Fault> {
        let period = 1_000_000_000 / i64::from(self.hz.max(1));
        let mut builder =
            Builder::new(&[("samples", "count"), ("cpu", "nanoseconds")], (("cpu", "nanoseconds"), period));
        builder.duration(self.took);
        for (thread, stack, count) in self.named() {
            builder.sample(&stack, &[count, count.saturating_mul(period)], &[("thread", &thread)]);
        }
        symbols::forget();
        builder.finish().map_err(|_| Fault::Write)
    }

    /// For people.
    pub(super) fn flame_graph(self) -> Result<Vec<u8>, Fault> {
        let mut lines: HashMap<String, i64> = HashMap::new();
        for (thread, stack, count) in self.named() {
            let functions = stack.iter().rev().flat_map(|place| place.lines.iter().rev());
            let names: Vec<_> =
                std::iter::once(thread).chain(functions.map(|line| line.function.replace(';', ":"))).collect();
            *lines.entry(names.join(";")).or_default() += count;
        }
        symbols::forget();
        let lines: Vec<String> = lines.into_iter().map(|(stack, count)| format!("{stack} {count}")).collect();
        let mut svg = Vec::new();
        let mut options = inferno::flamegraph::Options::default();
        "tallyd: CPU time".clone_into(&mut options.title);
        if lines.is_empty() {
            return Ok(EMPTY.as_bytes().to_vec());
        }
        inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
            .map_err(|_| Fault::Write)?;
        Ok(svg)
    }

    fn named(self) -> impl Iterator<Item = (String, Vec<Place>, i64)> {
        self.report.data.into_iter().map(|(frames, count)| {
            let frames = Frames::from(frames);
            let stack = frames.frames.iter().map(|inlined| place(inlined)).collect();
            (frames.thread_name_or_id(), stack, i64::try_from(count).unwrap_or(i64::MAX))
        })
    }
}

fn place(inlined: &[pprof::Symbol]) -> Place {
    let address = inlined.first().and_then(|symbol| symbol.addr).map_or(0, |address| address as u64);
    let lines = inlined.iter().map(|symbol| SourceLine {
        function: without_hash(&symbol.name()).to_owned(),
        file: symbol.filename().into_owned(),
        line: symbol.lineno(),
    });
    Place { address, lines: lines.collect() }
}

/// A Rust name without the hash at its end: `::h` and 16 digits.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((bare, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => bare,
        _ => name,
    }
}

/// One timer for the process.
static TURN: Semaphore = Semaphore::const_new(1);
const EMPTY: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"600\" height=\"40\"><text x=\"10\" y=\"25\">No \
                     samples: tallyd did nothing in this time.</text></svg>\n";

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::io::Read;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[inline(never)]
    fn a_known_busy_loop(stop: &AtomicBool) -> u64 {
        let mut number = 1_u64;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..1000 {
                number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
        number
    }

    fn text(file: &[u8]) -> String {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_known_busy_loop_is_on_top_and_there_is_one_profile_at_a_time() {
        static STOP: AtomicBool = AtomicBool::new(false);
        let busy = std::thread::Builder::new().name("busy".to_owned()).spawn(|| a_known_busy_loop(&STOP)).unwrap();
        let (first, second) = tokio::join!(record(Duration::from_secs(1), 200), record(Duration::from_secs(1), 200));
        assert!(matches!(second, Err(Fault::Busy)));
        STOP.store(true, Ordering::Relaxed);
        busy.join().unwrap();
        let mut by_leaf: HashMap<String, i64> = HashMap::new();
        let stacks = first.unwrap();
        let copy = Stacks {
            report: UnresolvedReport { data: stacks.report.data.clone(), timing: stacks.report.timing.clone() },
            ..stacks
        };
        for (thread, stack, count) in copy.named() {
            let inside =
                stack.iter().flat_map(|place| &place.lines).any(|line| line.function.ends_with("a_known_busy_loop"));
            *by_leaf.entry(format!("{thread} {inside}")).or_default() += count;
        }
        let top = by_leaf.iter().max_by_key(|(_, count)| **count).unwrap();
        assert_eq!(top.0, "busy true", "{by_leaf:?}");
        let profile = text(&stacks.profile().unwrap());
        assert!(profile.contains("a_known_busy_loop") && profile.contains("cpu.rs"));
    }

    #[test]
    fn a_hash_at_the_end_of_a_name_goes() {
        assert_eq!(without_hash("a::b::h0123456789abcdef"), "a::b");
        assert_eq!(without_hash("a::hello"), "a::hello");
    }
}
