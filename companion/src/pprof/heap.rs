//! Where memory was asked for, and where what is still held was: jemalloc's samples.
//!
//! In: a dump of jemalloc. Out: a profile with the four values that Go's has, or Go's text. Sizes are scaled from samples,
//! so they are estimates; what is small and rare may be missing.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::Read;

use super::profile::Builder;
use super::symbols::Symbols;

/// Which value a reader sees first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// All that was asked for since the start.
    Allocs,
    /// What is held now.
    Heap,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// jemalloc could not write its dump.
    #[error("jemalloc could not write its dump (it needs a writable temporary folder): {0}")]
    Dump(String),
    /// Not a dump as jemalloc 5 writes it.
    #[error("jemalloc's dump can't be read")]
    Format,
    /// Sampling is off.
    #[error("heap sampling is off: this process was started with MALLOC_CONF=prof:false")]
    Off,
    /// The profile could not be written.
    #[error("the profile could not be written")]
    Write,
}

/// What jemalloc has sampled.
#[derive(Debug, PartialEq)]
pub(super) struct Samples {
    /// Mean bytes between two samples.
    rate: f64,
    stacks: Vec<Stack>,
}

/// One stack that asked for memory.
#[derive(Debug, PartialEq)]
struct Stack {
    /// Return addresses, the innermost first.
    addresses: Vec<u64>,
    held: Amount,
    asked: Amount,
}

/// Objects and bytes, scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Amount {
    objects: f64,
    bytes: f64,
}

impl Samples {
    /// Takes them. Writes and reads a temporary file: not on a thread that answers.
    pub(super) fn take() -> Result<Self, Fault> {
        let control = jemalloc_pprof::PROF_CTL.as_ref().ok_or(Fault::Off)?;
        let mut control = control.blocking_lock();
        if !control.activated() {
            return Err(Fault::Off);
        }
        let file = control.dump().map_err(|error| Fault::Dump(error.to_string()))?;
        let mut text = String::new();
        file.take(MAX_DUMP_BYTES).read_to_string(&mut text).map_err(|error| Fault::Dump(error.to_string()))?;
        Self::parse(&text).ok_or(Fault::Format)
    }

    /// Reads a dump (`heap_v2`): a head, then for each stack its addresses and a line `t*: objects: bytes [objects: bytes]`.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let rate: f64 = lines.next()?.strip_prefix("heap_v2/")?.parse().ok()?;
        let mut stacks = Vec::new();
        let mut addresses = None;
        for line in lines.take_while(|line| !line.starts_with("MAPPED_LIBRARIES")) {
            let line = line.trim();
            if let Some(list) = line.strip_prefix('@') {
                let numbers =
                    list.split_whitespace().map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16));
                addresses = Some(numbers.collect::<Result<Vec<_>, _>>().ok()?);
            } else if let Some(values) = line.strip_prefix("t*:")
                && let Some(addresses) = addresses.take()
            {
                let (held, asked) = values.split_once('[')?;
                let held = Amount::parse(held)?.scaled(rate);
                let asked = Amount::parse(asked.trim_end_matches(']'))?.scaled(rate);
                stacks.push(Stack { addresses, held, asked });
            }
        }
        Some(Self { rate, stacks })
    }

    /// What was added since an earlier take, as Go's `?seconds=`; what was given back is negative.
    pub(super) fn since(mut self, earlier: &Self) -> Self {
        let before: HashMap<_, _> = earlier.stacks.iter().map(|stack| (&stack.addresses, stack)).collect();
        for stack in &mut self.stacks {
            if let Some(before) = before.get(&stack.addresses) {
                stack.held = stack.held.minus(before.held);
                stack.asked = stack.asked.minus(before.asked);
            }
        }
        self.stacks.retain(|stack| stack.held != Amount::default() || stack.asked != Amount::default());
        self
    }

    /// For `go tool pprof`. Names functions: not on a thread that answers.
    pub(super) fn profile(&self, view: View) -> Result<Vec<u8>, Fault> {
        let values = [
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ];
        let mut builder = Builder::new(&values, (("space", "bytes"), self.rate as i64));
        builder.default_value(if view == View::Heap { "inuse_space" } else { "alloc_space" });
        builder.hide(ALLOCATOR);
        let mut symbols = Symbols::default();
        for stack in &self.stacks {
            let places: Vec<_> = stack.addresses.iter().map(|address| symbols.place(*address)).collect();
            let values = [stack.asked.objects, stack.asked.bytes, stack.held.objects, stack.held.bytes];
            builder.sample(&places, &values.map(|value| value.round() as i64), &[]);
        }
        builder.finish().map_err(|_| Fault::Write)
    }

    /// The text that Go gives for `debug=1`; `go tool pprof` reads it, too.
    pub(super) fn text(&self) -> String {
        let total = |of: fn(&Stack) -> Amount| {
            self.stacks.iter().map(of).fold(Amount::default(), |sum, amount| Amount {
                objects: sum.objects + amount.objects,
                bytes: sum.bytes + amount.bytes,
            })
        };
        let mut page = String::new();
        let counts = |held: Amount, asked: Amount| {
            format!("{:.0}: {:.0} [{:.0}: {:.0}] @", held.objects, held.bytes, asked.objects, asked.bytes)
        };
        let head = counts(total(|stack| stack.held), total(|stack| stack.asked));
        // The samples are scaled already; a rate of 1 tells a reader to leave them so.
        let _ = writeln!(page, "heap profile: {head} heap/1");
        let mut symbols = Symbols::default();
        let mut stacks: Vec<_> = self.stacks.iter().collect();
        stacks.sort_by(|a, b| b.held.bytes.total_cmp(&a.held.bytes));
        for stack in stacks {
            let _ = write!(page, "{}", counts(stack.held, stack.asked));
            for address in &stack.addresses {
                let _ = write!(page, " {address:#x}");
            }
            page.push('\n');
            for address in &stack.addresses {
                for line in symbols.place(*address).lines {
                    let _ = writeln!(page, "#\t{address:#x}\t{}\t{}:{}", line.function, line.file, line.line);
                }
            }
            page.push('\n');
        }
        page
    }
}

impl Amount {
    fn parse(text: &str) -> Option<Self> {
        let (objects, bytes) = text.trim().split_once(':')?;
        Some(Self { objects: objects.trim().parse().ok()?, bytes: bytes.trim().parse().ok()? })
    }

    fn minus(self, other: Self) -> Self {
        Self { objects: self.objects - other.objects, bytes: self.bytes - other.bytes }
    }

    /// A stack's mean size says how probable each of its samples was (jeprof's AdjustSamples for `heap_v2`).
    fn scaled(self, rate: f64) -> Self {
        if self.objects <= 0.0 || rate <= 0.0 {
            return self;
        }
        let factor = 1.0 / -(-(self.bytes / self.objects) / rate).exp_m1();
        Self { objects: self.objects * factor, bytes: self.bytes * factor }
    }
}

/// jemalloc's own functions and Rust's way to them, which would otherwise be on top of every stack.
const ALLOCATOR: &str = r"(prof_.*|je_.*|_rjem_.*|i?malloc.*|calloc|r(e)?alloc.*|do_rallocx|aligned_alloc|posix_memalign|posix_memalign_default|arena_.*|large_.*|tcache_.*|tsd_.*|__rust_alloc.*|__rustc::__rust_.*|__rdl_.*|__rg_.*|<?alloc::(alloc|raw_vec)::.*|.*core::alloc::global::GlobalAlloc.*|<tikv_jemallocator::.*)";
/// A stack takes about 500 bytes; 100,000 different ones are more than the program has.
const MAX_DUMP_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// As jemalloc 5.3 writes it, with `prof_accum`.
    const DUMP: &str = "heap_v2/524288\n  t*: 3: 1573000 [5: 1574024]\n  t0: 3: 1573000 [5: 1574024]\n\
        @ 0x10 0x2f\n  t*: 1: 1048576 [1: 1048576]\n  t0: 1: 1048576 [1: 1048576]\n\
        @ 0x30\n  t*: 0: 0 [2: 1024]\n  t1: 0: 0 [2: 1024]\n\nMAPPED_LIBRARIES:\n00400000-00452000 r-xp @\n";

    #[test]
    fn samples_are_scaled_by_how_probable_they_were() {
        let samples = Samples::parse(DUMP).unwrap();
        assert_eq!((samples.rate, samples.stacks.len()), (524_288.0, 2));
        assert_eq!(samples.stacks[0].addresses, [0x10, 0x2f]);
        // 1 MiB at a mean distance of 512 KiB is hit with 1 - e^-2 = 0.864665: 1 / 0.864665 = 1.156518.
        assert!((samples.stacks[0].held.objects - 1.156_518).abs() < 1e-6);
        // Two objects of 512 bytes: 1 - e^(-512/524288) = 0.000976086, 2 / 0.000976086 = 2049.
        assert!((samples.stacks[1].asked.objects - 2049.0).abs() < 0.01, "{:?}", samples.stacks[1]);
        assert_eq!(samples.stacks[1].held, Amount::default());
    }

    #[test]
    fn a_difference_has_only_what_changed() {
        let later = DUMP.replace("@ 0x30\n  t*: 0: 0 [2: 1024]", "@ 0x30\n  t*: 1: 512 [4: 2048]");
        let difference = Samples::parse(&later).unwrap().since(&Samples::parse(DUMP).unwrap());
        assert_eq!(difference.stacks.len(), 1);
        assert_eq!(difference.stacks[0].addresses, [0x30]);
        // Two more objects of 512 bytes, 1024.5 for each that was sampled.
        assert!((difference.stacks[0].asked.objects - 2049.0).abs() < 0.01);
        assert!((difference.stacks[0].held.objects - 1024.5).abs() < 0.01);
    }

    #[test]
    fn what_is_no_dump_is_none() {
        for text in ["", "heap_v1/1\n", "heap_v2/x\n", "heap_v2/1\n@ zz\n", "heap_v2/1\n@ 0x1\n t*: 1\n"] {
            assert_eq!(Samples::parse(text), None, "{text:?}");
        }
    }
}
