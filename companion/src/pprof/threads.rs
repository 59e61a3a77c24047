//! The process's threads, as the kernel lists them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use super::profile::{Builder, Place, SourceLine};

/// One thread.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    id: u64,
    name: String,
    /// The kernel's letter: R runs, S sleeps, D waits for a device.
    state: char,
    /// Time on a processor, in hundredths of a second.
    ticks: u64,
}

/// All threads; none where there is no `/proc`.
fn list() -> Vec<Thread> {
    let Ok(folder) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let stats = folder.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let mut threads: Vec<_> = stats.filter_map(|stat| parse(&stat)).collect();
    threads.sort_by_key(|thread| thread.id);
    threads
}

/// `id (name) state …`, user and system time in fields 14 and 15 (proc(5)); a name may hold anything, a `)` too.
fn parse(stat: &str) -> Option<Thread> {
    let (id, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Thread {
        id: id.parse().ok()?,
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
        ticks: ticks(11)? + ticks(12)?,
    })
}

/// Threads now.
pub(super) fn count() -> usize {
    list().len()
}

/// One stack a name, of one line.
pub(super) fn profile() -> std::io::Result<Vec<u8>> {
    let mut by_name: BTreeMap<String, i64> = BTreeMap::new();
    for thread in list() {
        *by_name.entry(thread.name).or_default() += 1;
    }
    let mut builder = Builder::new(&[("threadcreate", "count")], (("threadcreate", "count"), 1));
    for (address, (name, count)) in (1_u64..).zip(by_name) {
        let line = SourceLine { function: format!("thread {name}"), ..SourceLine::default() };
        builder.sample(&[Place { address, lines: vec![line] }], &[count], &[]);
    }
    builder.finish()
}

/// One line a thread.
pub(super) fn text() -> String {
    let threads = list();
    let mut page = format!("threadcreate profile: total {}\n", threads.len());
    for thread in threads {
        let seconds = thread.ticks as f64 / TICKS_PER_SECOND;
        let _ = writeln!(page, "1 @ thread {} [{}, {seconds:.2}s CPU]\t{}", thread.id, thread.state, thread.name);
    }
    page
}

/// What Linux shows to programs, whatever it uses inside.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_bracket_does_not_shift_the_fields() {
        let stat = "4242 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 5 0 1 2 3";
        let thread = Thread { id: 4242, name: "a) b".to_owned(), state: 'S', ticks: 200 };
        assert_eq!(parse(stat), Some(thread));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn a_thread_is_listed_by_its_name() {
        // Seen from inside: outside, it may not have taken its name yet.
        let thread = std::thread::Builder::new().name("of-a-test".to_owned()).spawn(text).unwrap();
        let page = thread.join().unwrap();
        assert!(page.contains("\tof-a-test\n"), "{page}");
    }
}
