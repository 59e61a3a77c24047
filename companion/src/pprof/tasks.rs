//! Live tasks: which there are, where they were started, how often they ran and whether one runs now.
//!
//! In: futures that are started through [`spawn`]. Out: the list, as a profile by place of start or as text. Tasks that
//! libraries start are only counted: tokio does not tell where they come from.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::task::JoinHandle;

use super::profile::{Builder, Place, SourceLine};

/// Starts a task that is on the list while it lives.
#[track_caller]
pub(crate) fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let task = Arc::new(Task {
        name,
        at: Location::caller(),
        since: Instant::now(),
        polls: AtomicU64::new(0),
        is_running: AtomicBool::new(false),
    });
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    live().insert(id, task.clone());
    tokio::spawn(Listed { future: Box::pin(future), task, _entry: Entry(id) })
}

/// One live task.
#[derive(Debug)]
struct Task {
    name: &'static str,
    at: &'static Location<'static>,
    since: Instant,
    polls: AtomicU64,
    is_running: AtomicBool,
}

struct Listed<F> {
    future: Pin<Box<F>>,
    task: Arc<Task>,
    _entry: Entry,
}

/// Takes the task off the list, however it ends.
struct Entry(u64);

impl<F: Future> Future for Listed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.task.polls.fetch_add(1, Ordering::Relaxed);
        self.task.is_running.store(true, Ordering::Relaxed);
        let result = self.future.as_mut().poll(context);
        self.task.is_running.store(false, Ordering::Relaxed);
        result
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        live().remove(&self.0);
    }
}

/// Tasks on the list.
pub(super) fn count() -> usize {
    live().len()
}

/// Tasks of the runtime, those of libraries included.
pub(super) fn count_all() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// One stack a place of start, of one line.
pub(super) fn profile() -> std::io::Result<Vec<u8>> {
    let mut by_place: BTreeMap<(&str, &str, u32), i64> = BTreeMap::new();
    for task in live().values() {
        *by_place.entry((task.name, task.at.file(), task.at.line())).or_default() += 1;
    }
    let others = count_all().saturating_sub(count());
    if others > 0 {
        by_place.insert(("started by a library", "", 0), i64::try_from(others).unwrap_or(i64::MAX));
    }
    let mut builder = Builder::new(&[("goroutine", "count")], (("goroutine", "count"), 1));
    for (address, ((name, file, line), count)) in (1_u64..).zip(by_place) {
        let line = SourceLine { function: name.to_owned(), file: file.to_owned(), line };
        builder.sample(&[Place { address, lines: vec![line] }], &[count], &[]);
    }
    builder.finish()
}

/// `each`: one line a task; else one a place of start.
pub(super) fn text(each: bool) -> String {
    let live = live();
    let mut page = format!("goroutine profile: total {} (tokio tasks; {} listed)\n", count_all(), live.len());
    let mut by_place: BTreeMap<(&str, &str, u32), usize> = BTreeMap::new();
    for (id, task) in live.iter() {
        *by_place.entry((task.name, task.at.file(), task.at.line())).or_default() += 1;
        if each {
            let state = if task.is_running.load(Ordering::Relaxed) { "running" } else { "waiting" };
            let _ = writeln!(
                page,
                "task {id} [{state}, {:.0?}, polled {} times]: {}\n\t{}:{}",
                task.since.elapsed(),
                task.polls.load(Ordering::Relaxed),
                task.name,
                task.at.file(),
                task.at.line(),
            );
        }
    }
    if !each {
        for ((name, file, line), count) in by_place {
            let _ = writeln!(page, "{count} @\n#\t{name}\t{file}:{line}\n");
        }
    }
    page
}

fn live() -> MutexGuard<'static, BTreeMap<u64, Arc<Task>>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

static NEXT: AtomicU64 = AtomicU64::new(1);
/// Bounded by what starts tasks: connections have a cap, the rest is as many as the configuration names.
static LIVE: LazyLock<Mutex<BTreeMap<u64, Arc<Task>>>> = LazyLock::new(Mutex::default);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_is_on_the_list_while_it_lives() {
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let task = spawn("a task of a test", async {
            let _ = ended.await;
        });
        tokio::task::yield_now().await;
        let line = line!() - 4;
        let page = text(true);
        assert!(page.contains(&format!("a task of a test\n\tcompanion/src/pprof/tasks.rs:{line}\n")), "{page}");
        assert!(page.contains("waiting") && page.contains("polled 1 times"), "{page}");
        assert!(text(false).contains(&format!("1 @\n#\ta task of a test\tcompanion/src/pprof/tasks.rs:{line}\n")));
        end.send(()).unwrap();
        task.await.unwrap();
        assert!(!text(true).contains("a task of a test"));
    }

    #[tokio::test]
    async fn a_task_that_is_cut_off_leaves_the_list() {
        let task = spawn("a task to be cut off", std::future::pending::<()>());
        assert!(text(true).contains("a task to be cut off"));
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(!text(true).contains("a task to be cut off"));
    }
}
