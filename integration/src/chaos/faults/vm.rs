//! VMs that trap: a foreign filter's beside ours, which must not matter to us; and our own, which costs what was not
//! flushed, and no more.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;

use super::Outcome;
use super::configuration::UnderWay;
use crate::chaos::book::Fate;
use crate::chaos::bootstrap::{CONFIG, without_right};
use crate::chaos::load::{Meaning, chat, locked};
use crate::chaos::world::{Found, SOON, World};
use crate::client::{Answer, Request};
use crate::page::{Page, Sample};
use crate::tools::poll;

/// The flush interval and as much again for a worker that is late: what ended longer ago has been flushed.
const UNFLUSHED: Duration = Duration::from_millis(500);

/// Envoy answers for a filter whose VM is away, before the body has come to anybody.
fn filter_is_away(answer: &Answer) -> Option<Meaning> {
    (answer.status == 503 && answer.body.is_empty()).then_some(Meaning::CountedNameless("local_reply"))
}

fn foreign(world: &mut World, what: &str) -> Result<Outcome> {
    // What is under way in the VM when it traps is of a known model; what comes later has none.
    world.load.pause()?;
    let under_way = UnderWay::start(world, 700)?;
    world.load.explain(filter_is_away);
    let send = |world: &World, request: Request| -> Result<u16> {
        let answer = request.send(world.envoy.port)?;
        let (model, bytes) = ("foreign".to_owned(), Some(request.body.len() as u64));
        let (tokens, ended) = (Some((2, 3)), Instant::now());
        let fate = Fate { model, outcome: "complete", tokens, bytes, ended };
        let fate = match (answer.status, filter_is_away(&answer)) {
            (200, _) => Some(fate),
            (_, Some(meaning)) => fate.explained(meaning),
            _ => bail!("a client got {answer:?}"),
        };
        fate.into_iter().for_each(|fate| world.enter(fate));
        Ok(answer.status)
    };
    let request = chat("foreign", "json", (2, 3));
    let status = send(world, request.clone().header("x-hostile", what))?;
    ensure!(status == 503, "the foreign VM has not trapped: {status}");
    world.load.resume();
    under_way.end_or(world, Meaning::Counted("local_reply"))?;
    world.load.after(50)?;
    // Its VMs come again by the next request after a pause; then all is as before.
    let mut good = 0;
    poll(SOON, || {
        good = if send(world, request.clone()).ok()? == 200 { good + 1 } else { 0 };
        (good == 20).then_some(())
    })
    .context("the foreign filter did not come again")?;
    world.load.settle()?;
    world.forgive_vm_failures()?;
    Ok(Outcome::Check)
}

pub(super) fn foreign_traps(world: &mut World, _: &mut Rng) -> Result<Outcome> {
    foreign(world, "trap")
}

pub(super) fn foreign_hogs(world: &mut World, _: &mut Rng) -> Result<Outcome> {
    let peak = |world: &mut World| -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", world.envoy.process().0.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
        Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
    };
    let outcome = foreign(world, "memory")?;
    let kilobytes = peak(world)?;
    ensure!(kilobytes > 256 * 1024, "Envoy never had more than {kilobytes} kB");
    Ok(outcome)
}

/// What a client sees whose request was in the VM, or came while it was away: not counted.
fn our_vm_is_away(answer: &Answer) -> Option<Meaning> {
    ([408, 503, 504].contains(&answer.status) || !answer.complete).then_some(Meaning::NotCounted)
}

/// What waits for admission in a VM that traps is never resumed: Envoy's idle time-out ends it, here after this.
const IDLE: &str = "stream_idle_timeout: 4s";

/// The VM is made to fail by taking a right from it that it needs for one model only, whose name it is to change.
pub(super) fn own_traps(_: &mut World, _: &mut Rng) -> Result<Outcome> {
    let mut world = World::start_with(&|options| {
        without_right(options, "proxy_set_buffer_bytes").edit("stream_idle_timeout: 300s", IDLE)
    })?;
    let before = world.check()?;
    ensure!(before.wrong.is_empty(), "before the trap: {:?}", before.wrong);
    world.options.config =
        CONFIG.replacen('{', r#"{"model_rewrites":[{"model":"trap","targets":[{"model":"other","weight":1}]}],"#, 1);
    world.envoy.update_listener(&world.options)?;
    locked(&world.books).journal = Some(Vec::new());
    world.load.after(100)?;
    world.load.explain(our_vm_is_away);
    let trapped = Instant::now();
    let answer = chat("trap", "json", (1, 1)).send(world.envoy.port)?;
    ensure!(answer.status == 503, "no trap: {answer:?}");
    let until = Instant::now() + UNFLUSHED;
    world.load.after(50)?;
    let mut good = 0;
    let is_back = || {
        // Of a model that no book holds: it cannot be known whether these are counted.
        let status = chat("probe", "json", (1, 1)).send(world.envoy.port).ok()?.status;
        good = if status == 200 { good + 1 } else { 0 };
        (good == 20).then_some(())
    };
    poll(SOON, is_back).with_context(|| format!("the VM did not come again:\n{}", world.envoy.log()))?;
    world.load.settle()?;
    let mut found = look(&mut world, trapped, until)?;
    // From here on all has to be exact again.
    world.forgive_vm_failures()?;
    let page = settled(&world)?;
    locked(&world.books).rebase(page);
    world.load.resume();
    CONFIG.clone_into(&mut world.options.config);
    world.envoy.update_listener(&world.options)?;
    world.load.after(100)?;
    // tallyd takes what the dead VM ran for running, until the VM has been silent for half a minute: nobody waits so long.
    let after = world.check_envoy()?;
    found.requests += after.requests;
    (found.lost, found.twice) = (found.lost + after.lost, found.twice + after.twice);
    found.wrong.extend(after.wrong.into_iter().map(|wrong| format!("after the VM had come again: {wrong}")));
    Ok(Outcome::Checked(found))
}

/// What was lost, against what may be. The traffic stands afterwards.
fn look(world: &mut World, trapped: Instant, until: Instant) -> Result<Found> {
    let mut found = Found::default();
    world.load.pause()?;
    found.wrong = world.load.hurt();
    // The gauges heal when the dead VM's share has been taken back; by then everything else has been flushed.
    let gauges = ["inference_objective_running_requests", "tally_filter_live_streams"];
    let values = || world.envoy.page().map(|page| gauges.map(|gauge| page.total(gauge, &[])));
    if poll(SOON, || (values().ok()? == [0.0; 2]).then_some(())).is_none() {
        found.wrong.push(format!("the gauges do not heal: {:?}", values()));
    }
    let page = settled(world)?;
    let book = locked(&world.books);
    let fates = book.journal.as_deref().unwrap_or_default();
    let since = trapped.checked_sub(UNFLUSHED).unwrap_or(trapped);
    found.allowed = fates.iter().filter(|fate| (since..until).contains(&fate.ended)).count() as u64;
    found.requests = book.requests();
    (found.lost, found.twice) = book.lost_and_twice_of_known(&page);
    Ok(found)
}

/// The page when it has come to rest: a new VM defines its series a few at a time, and what it has counted waits meanwhile.
fn settled(world: &World) -> Result<Page> {
    const REST: Duration = Duration::from_secs(1);
    let ours = |page: &Page| -> Vec<Sample> {
        page.samples.iter().filter(|sample| sample.name.starts_with("inference_")).cloned().collect()
    };
    let mut last = world.envoy.page()?;
    let rest = poll(SOON, || {
        std::thread::sleep(REST);
        let page = world.envoy.page().ok()?;
        let is_same = ours(&page) == ours(&last);
        last = page;
        is_same.then_some(())
    });
    ensure!(rest.is_some(), "the page does not come to rest without traffic");
    Ok(last)
}
