//! Admission through the real Envoy and the real tallyd: held and let go, refused, left, and whatever may die.

#![allow(clippy::needless_collect, reason = "every client is started before the first is waited for")]

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tally_integration::client::{Answer, Leave, Request};
use tally_integration::companion::Companion;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::model_server::{Behaviour, End, ModelServer};
use tally_integration::page::Page;
use tally_integration::tools::{self, poll};

const SOON: Duration = Duration::from_secs(20);
const QUEUE_SIZE: &str = "inference_extension_flow_control_queue_size";
const OUTCOMES: &str = "inference_extension_flow_control_requests_total";
const SATURATION: &str = "inference_extension_flow_control_pool_saturation";
/// The body that a client gets when the companion cannot be asked and the filter is to fail closed.
const UNREACHABLE: &str = "inference gateway: ServiceUnavailable - flow control could not be reached";

struct World {
    envoy: Envoy,
    companion: Option<Companion>,
    grpc: u16,
    flow: String,
}

impl World {
    /// The filter's `admission`, and tallyd's `flow_control`.
    fn start(admission: &str, flow: &str) -> Result<Self> {
        let grpc = tools::free_port()?;
        let server = ModelServer::start()?;
        let options = Options { companion: grpc, ..Options::to(server.port) };
        let envoy = Envoy::start(&options.config(&format!(r#"{{"admission":{admission}}}"#)))?;
        let mut world = Self { envoy, companion: None, grpc, flow: flow.to_owned() };
        world.start_companion()?;
        Ok(world)
    }

    fn start_companion(&mut self) -> Result<()> {
        let config = format!("flow_control: {{{}}}\n", self.flow);
        let port = self.grpc.to_string();
        self.companion = Some(Companion::start(&config, &["--grpc-port", &port, "--grpc-health-port", "0"])?);
        ensure!(tools::listening(self.grpc, SOON), "nothing listens at {port}");
        Ok(())
    }

    /// Ends it as a crash would.
    fn kill_companion(&mut self) -> Result<()> {
        let mut companion = self.companion.take().context("it runs")?;
        companion.process().0.kill()?;
        companion.process().0.wait()?;
        Ok(())
    }

    fn companion_page(&self) -> Result<Page> {
        self.companion.as_ref().context("it runs")?.page()
    }

    fn waits(&self, requests: f64) -> Result<()> {
        let is_so = || (self.companion_page().ok()?.total(QUEUE_SIZE, &[]) == requests).then_some(());
        poll(SOON, is_so).with_context(|| format!("{requests} should wait:\n{:?}", self.companion_page()))
    }

    /// Requests that the filter asked about, by result; the stats lag by a flush.
    fn result(&self, result: &str, expected: f64) -> Result<()> {
        let found = || {
            self.envoy.page().map_or(-1.0, |page| page.total("tally_filter_admissions_total", &[("result", result)]))
        };
        poll(SOON, || (found() == expected).then_some(()))
            .with_context(|| format!("{result}: {} of {expected}", found()))
    }

    /// Envoy runs, its VM never failed, and no call to it did.
    fn is_well(&mut self) -> Result<()> {
        ensure!(self.envoy.alive(), "Envoy ended:\n{}", self.envoy.log());
        ensure!(self.envoy.vm_failures()? == 0.0, "the filter failed:\n{}", self.envoy.log());
        ensure!(!self.envoy.log().contains("panicked"), "the filter panicked:\n{}", self.envoy.log());
        let gauge = || self.envoy.page().map_or(-1.0, |page| page.total("tally_filter_live_streams", &[]));
        ensure!(poll(SOON, || (gauge() == 0.0).then_some(())).is_some(), "{} streams are left", gauge());
        let failed = self.envoy.page()?.total("tally_filter_host_call_errors_total", &[]);
        ensure!(failed == 0.0, "{failed} calls to Envoy failed");
        Ok(())
    }
}

fn behaving(behaviour: &Behaviour) -> Request {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
    Request::post("/v1/chat/completions", body).header("x-behave", behaviour.header())
}

fn quick() -> Request {
    behaving(&Behaviour { bytes: 5, ..Behaviour::default() })
}

/// A request that runs until its client leaves.
fn running_for(time: Duration) -> Request {
    behaving(&Behaviour { bytes: 900, pieces_of: 300, end: End::Hang, ..Behaviour::default() })
        .leaving(Leave::After(time))
}

/// Sends it from a thread of its own.
fn in_background(request: Request, port: u16) -> thread::JoinHandle<Result<Answer>> {
    thread::spawn(move || Ok(request.send(port)?))
}

fn answer_of(thread: thread::JoinHandle<Result<Answer>>) -> Result<Answer> {
    thread.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
}

#[test]
fn a_request_is_held_while_the_pool_is_full_and_let_go_when_one_ends() -> Result<()> {
    let mut world = World::start("{}", "saturationDetector: {maxConcurrency: 1}")?;
    let port = world.envoy.port;
    let began = Instant::now();
    let first = in_background(running_for(Duration::from_secs(4)), port);
    // The first runs before the second asks.
    world.result("dispatched", 1.0)?;
    let body = format!("{{\"model\":\"m\",\"prompt\":\"{}\"}}", "x".repeat(3_000_000));
    let big = Request::post("/v1/completions", body)
        .header("x-behave", Behaviour { bytes: 5, ..Behaviour::default() }.header())
        .header("x-gateway-inference-fairness-id", "alice");
    let second = in_background(big, port);
    world.waits(1.0)?;
    let page = world.companion_page()?;
    ensure!(page.total(QUEUE_SIZE, &[("fairness_id", "alice"), ("priority", "0")]) == 1.0, "{page:?}");
    let size = page.total("inference_extension_flow_control_queue_bytes", &[("fairness_id", "alice")]);
    ensure!(size > 3_000_000.0, "{size} bytes");
    ensure!(!second.is_finished(), "it was not held");
    answer_of(first)?;
    let answer = answer_of(second)?;
    ensure!(answer.status == 200 && answer.body == b"xxxxx", "{} after the wait", answer.status);
    ensure!(began.elapsed() >= Duration::from_secs(4), "it went on too early");
    world.result("dispatched", 2.0)?;
    // Both ends are known: nothing runs.
    let is_free = poll(SOON, || (world.companion_page().ok()?.sum(SATURATION, &[])? == 0.0).then_some(()));
    ensure!(is_free.is_some(), "{:?}", world.companion_page()?.sum(SATURATION, &[]));
    // The wait is a part of what the client waited.
    let waited = || {
        let page = world.envoy.page().ok()?;
        (page.total("inference_objective_request_duration_seconds_sum", &[]) >= 1.0).then_some(())
    };
    ensure!(poll(SOON, waited).is_some(), "the duration is without the wait");
    world.is_well()
}

#[test]
fn a_refused_client_gets_status_body_and_headers() -> Result<()> {
    let flow = "saturationDetector: {maxConcurrency: 1}, maxRequests: 1, reply: llm-d, retry_after_seconds: 7";
    let mut world = World::start(r#"{"timeout_ms":1500}"#, flow)?;
    let port = world.envoy.port;
    let first = in_background(running_for(Duration::from_secs(4)), port);
    world.result("dispatched", 1.0)?;
    let second = in_background(quick(), port);
    world.waits(1.0)?;
    let full = quick().send(port)?;
    ensure!(full.status == 429, "{full:?}");
    let body = String::from_utf8_lossy(&full.body);
    let expected = "inference gateway: InferencePoolResourceExhausted - request rejected pre-queue: queue at capacity";
    ensure!(body == expected, "{body}");
    let header = |name: &str| full.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    ensure!(header("retry-after") == Some("7"), "{:?}", full.headers);
    ensure!(header("x-llm-d-request-dropped-reason") == Some("rejected-saturated"), "{:?}", full.headers);
    // The second has waited as long as the filter's configuration allows.
    let late = answer_of(second)?;
    ensure!(late.status == 429 && late.body.ends_with(b"request TTL expired"), "{late:?}");
    answer_of(first)?;
    world.result("rejected", 2.0)?;
    let page = world.envoy.page()?;
    ensure!(page.total("inference_objective_request_outcome_total", &[("outcome", "rejected")]) == 2.0, "outcomes");
    let errors = page.total("inference_objective_request_error_total", &[("error_code", "ResourceExhausted")]);
    ensure!(errors == 2.0, "{errors} errors");
    world.is_well()
}

#[test]
fn a_client_that_leaves_the_queue_gives_its_place_up_at_once() -> Result<()> {
    let mut world = World::start("{}", "saturationDetector: {maxConcurrency: 1}")?;
    let port = world.envoy.port;
    let first = in_background(running_for(Duration::from_secs(4)), port);
    world.result("dispatched", 1.0)?;
    let second = in_background(quick().leaving(Leave::After(Duration::from_secs(1))), port);
    world.waits(1.0)?;
    answer_of(second)?;
    world.waits(0.0)?;
    let page = world.companion_page()?;
    ensure!(page.total(OUTCOMES, &[("outcome", "EvictedContextCancelled")]) == 1.0, "{page:?}");
    ensure!(!first.is_finished(), "the place was free before the first had ended");
    answer_of(first)?;
    world.result("cancelled", 1.0)?;
    world.is_well()
}

/// Clients without a pause, while the companion is killed and comes back. How often each status came.
fn killed_in_full_traffic(on_failure: &str) -> Result<(World, [usize; 3], Vec<Answer>)> {
    const CLIENTS: usize = 8;
    let admission = format!(r#"{{"on_failure":"{on_failure}"}}"#);
    let mut world = World::start(&admission, "saturationDetector: {maxConcurrency: 4}")?;
    let port = world.envoy.port;
    let (done, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let after = |more: usize| {
        let target = sent.load(Ordering::Relaxed) + more;
        poll(SOON, || (sent.load(Ordering::Relaxed) >= target).then_some(())).context("the traffic stopped")
    };
    let request = behaving(&Behaviour { bytes: 5, wait_ms: 5, ..Behaviour::default() });
    let mut answers = Vec::new();
    thread::scope(|scope| {
        let client = || {
            let mut answers = Vec::new();
            while !done.load(Ordering::Relaxed) {
                answers.push(request.send(port)?);
                sent.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, anyhow::Error>(answers)
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let course = (|| {
            after(200)?;
            world.kill_companion()?;
            after(200)?;
            world.start_companion()?;
            // Envoy sees it again.
            let dispatched = || {
                let page = world.companion_page().ok()?;
                (page.total(OUTCOMES, &[("outcome", "Dispatched")]) >= 50.0).then_some(())
            };
            poll(SOON, dispatched).context("nobody asks the new companion")?;
            world.kill_companion()?;
            after(100)
        })();
        done.store(true, Ordering::Relaxed);
        for client in clients {
            answers.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        course
    })?;
    let with = |status| answers.iter().filter(|answer| answer.status == status && answer.complete).count();
    let counts = [answers.len(), with(200), with(503)];
    Ok((world, counts, answers))
}

#[test]
fn with_fail_open_no_client_sees_that_the_companion_was_killed() -> Result<()> {
    let (mut world, [all, good, _], answers) = killed_in_full_traffic("open")?;
    let bad = answers.iter().find(|answer| answer.status != 200);
    ensure!(good == all, "{good} of {all}; one that was not: {bad:?}");
    let total = || world.envoy.page().map_or(0.0, |page| page.total("tally_filter_admissions_total", &[]));
    ensure!(poll(SOON, || (total() == all as f64).then_some(())).is_some(), "{} results of {all}", total());
    let open = world.envoy.page()?.total("tally_filter_admissions_total", &[("result", "failed_open")]);
    ensure!(open >= 200.0, "{open} passed without a decision");
    world.is_well()
}

#[test]
fn with_fail_closed_clients_get_503_with_a_clear_body_while_the_companion_is_gone() -> Result<()> {
    let (mut world, [all, good, refused], answers) = killed_in_full_traffic("closed")?;
    ensure!(good + refused == all && good >= 200 && refused >= 200, "{good} good, {refused} refused of {all}");
    for answer in answers.iter().filter(|answer| answer.status == 503) {
        ensure!(String::from_utf8_lossy(&answer.body) == UNREACHABLE, "{answer:?}");
        ensure!(answer.headers.iter().any(|(name, value)| name == "retry-after" && value == "1"), "{answer:?}");
    }
    world.result("failed_closed", refused as f64)?;
    world.is_well()
}

#[test]
fn a_companion_that_no_longer_answers_holds_nobody_beyond_the_deadline() -> Result<()> {
    let mut world = World::start(r#"{"timeout_ms":500}"#, "saturationDetector: {maxConcurrency: 4}")?;
    let port = world.envoy.port;
    ensure!(quick().send(port)?.status == 200, "before");
    let pid = world.companion.as_ref().context("it runs")?.pid().to_string();
    let signal = |name: &str| std::process::Command::new("kill").args([name, &pid]).status();
    ensure!(
        signal("-STOP")?.success() && poll(SOON, || is_stopped(&pid).then_some(())).is_some(),
        "it was not stopped"
    );
    let waiting: Vec<_> = (0..20).map(|_| in_background(quick(), port)).collect();
    for answer in waiting {
        let answer = answer_of(answer)?;
        ensure!(answer.status == 200 && answer.took < Duration::from_secs(10), "{answer:?}");
    }
    world.result("failed_open", 20.0)?;
    // The answers that now come find nobody.
    ensure!(signal("-CONT")?.success(), "it was not resumed");
    // What it let go before it heard that nobody waits is given back by the filter's reports.
    let dispatched = || {
        quick().send(port).ok()?;
        let page = world.envoy.page().ok()?;
        (page.total("tally_filter_admissions_total", &[("result", "dispatched")]) >= 10.0).then_some(())
    };
    ensure!(poll(2 * SOON, dispatched).is_some(), "it is asked again: {:?}", world.companion_page());
    world.is_well()
}

/// Whether every thread of a process stands still.
fn is_stopped(pid: &str) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let state = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
    threads.map(state).all(|stat| stat.contains(") T "))
}

/// A name that happens to be a protobuf message must not be taken for one.
#[test]
fn a_cluster_that_does_not_exist_is_a_companion_that_is_gone() -> Result<()> {
    for (on_failure, status) in [("open", 200), ("closed", 503)] {
        let admission = format!(r#"{{"cluster":"admission","on_failure":"{on_failure}"}}"#);
        let mut world = World::start(&admission, "")?;
        for _ in 0..20 {
            let answer = quick().send(world.envoy.port)?;
            ensure!(answer.status == status && answer.complete, "{answer:?}");
        }
        world.result(if status == 200 { "failed_open" } else { "failed_closed" }, 20.0)?;
        world.is_well()?;
    }
    Ok(())
}

#[test]
fn more_requests_wait_than_envoys_default_allows_and_all_leave_at_once() -> Result<()> {
    const WAITING: usize = 1_500;
    let mut world = World::start("{}", "saturationDetector: {maxConcurrency: 1}")?;
    let first = in_background(running_for(Duration::from_secs(25)), world.envoy.port);
    world.result("dispatched", 1.0)?;
    let waiting: Vec<TcpStream> = (0..WAITING)
        .map(|_| {
            let mut client = TcpStream::connect(("127.0.0.1", world.envoy.port))?;
            client.write_all(b"POST /v1/completions HTTP/1.1\r\nhost: tally.test\r\ncontent-length: 2\r\n\r\n{}")?;
            Ok(client)
        })
        .collect::<Result<_>>()?;
    world.waits(WAITING as f64)?;
    drop(waiting);
    world.waits(0.0)?;
    world.result("cancelled", WAITING as f64)?;
    ensure!(!first.is_finished(), "they left before the first had ended");
    answer_of(first)?;
    world.is_well()
}

#[test]
fn five_thousand_requests_with_leaving_clients_have_one_outcome_each() -> Result<()> {
    const CLIENTS: usize = 20;
    const EACH: usize = 250;
    let mut world = World::start("{}", "saturationDetector: {maxConcurrency: 4}, maxRequests: 12")?;
    let port = world.envoy.port;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || {
                    for number in 0..EACH {
                        let mut request = behaving(&Behaviour { bytes: 5, wait_ms: 2, ..Behaviour::default() })
                            .header("x-gateway-inference-fairness-id", format!("tenant-{client}"));
                        // A third leaves, in the queue, at its end or while it runs.
                        if number % 3 == 0 {
                            request = request.leaving(Leave::After(Duration::from_millis(1 + number as u64 % 20)));
                        }
                        let answer = request.send(port)?;
                        ensure!([0, 200, 429].contains(&answer.status), "{answer:?}");
                    }
                    Ok(())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    let asked = (CLIENTS * EACH) as f64;
    world.is_well()?;
    world.waits(0.0)?;
    let total = |name: &str| world.envoy.page().map_or(-1.0, |page| page.total(name, &[]));
    for name in ["tally_filter_admissions_total", "inference_objective_request_outcome_total"] {
        ensure!(poll(SOON, || (total(name) == asked).then_some(())).is_some(), "{name}: {} of {asked}", total(name));
    }
    let [filter, page] = [world.envoy.page()?, world.companion_page()?];
    let by = |result: &str| filter.total("tally_filter_admissions_total", &[("result", result)]);
    let said = |outcome: &str| page.total(OUTCOMES, &[("outcome", outcome)]);
    let [dispatched, rejected, cancelled] = ["dispatched", "rejected", "cancelled"].map(by);
    println!("dispatched {dispatched}, rejected {rejected}, cancelled {cancelled}");
    ensure!(
        dispatched > 0.0 && rejected > 0.0 && cancelled > 0.0,
        "each should come: {dispatched} {rejected} {cancelled}"
    );
    ensure!(dispatched + rejected + cancelled == asked, "nothing failed");
    // A client may leave while the decision is on its way: the companion then has let go, or refused, more.
    ensure!(said("Dispatched") >= dispatched && said("RejectedCapacity") >= rejected, "{page:?}");
    ensure!(page.total(OUTCOMES, &[]) <= asked, "the companion decided more often than it was asked");
    // All ends were told: nothing runs, so that the next burst finds the whole capacity.
    let is_free = poll(SOON, || (world.companion_page().ok()?.sum(SATURATION, &[])? == 0.0).then_some(()));
    ensure!(is_free.is_some(), "{:?}", world.companion_page()?.sum(SATURATION, &[]));
    world.is_well()
}
