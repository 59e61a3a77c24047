//! Virtual time: requests come, flow control decides, servers work, clients lose patience.
//!
//! In: a scenario, and whether flow control stands in front of the servers. Out: a [`Tally`]. The
//! controller is the one that `tallyd` runs, driven by events instead of the clock; nothing here waits.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tally_core::admission::{Completed, Outcome};

use super::random::Random;
use super::scenario::Scenario;
use super::servers::{Begun, Job, Servers};
use super::tally::{POINTS, Tally};
use crate::flow::config::FlowConfigError;
use crate::flow::controller::{Ask, Controller, Decided};

/// See the file's head.
struct World<'a> {
    scenario: &'a Scenario,
    /// `None`: every request goes to a server as it comes.
    controller: Option<Controller<u32>>,
    servers: Servers,
    tally: Tally,
    /// Where requests go.
    random: Random,
    /// Who comes, by class: the same in every run of a scenario.
    comers: Vec<Random>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    requests: Vec<Request>,
    names: Vec<Vec<String>>,
    ended: Vec<Completed>,
    turn_nanos: u64,
    out: Vec<Decided<u32>>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    class: u16,
    flow: u16,
    prompt: u32,
    output: u32,
    came_nanos: u64,
    server: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Come { class: usize },
    End { server: usize, number: u32 },
    LosePatience { number: u32 },
    Look { point: usize },
    Report,
    Resize { endpoints: usize },
    Scrape,
    Turn,
}

/// Runs a scenario to its end.
///
/// # Errors
/// When flow control's configuration is no plan.
pub fn run(scenario: &Scenario, with_flow_control: bool) -> Result<Tally, FlowConfigError> {
    let controller = match with_flow_control {
        true => Some(Controller::new(scenario.flow_control.clone().plan()?.with_pool(true)?.controller)),
        false => None,
    };
    let names =
        |class: &super::scenario::Class| (0..class.fairness_ids).map(|id| format!("{}-{id}", class.name)).collect();
    let mut world = World {
        scenario,
        controller,
        servers: Servers::new(scenario.pool.clone()),
        tally: Tally::new(scenario),
        random: Random::new(scenario.seed),
        comers: (1..).map(|class| Random::new(scenario.seed ^ (class << 32))).take(scenario.classes.len()).collect(),
        events: BinaryHeap::new(),
        count: 0,
        requests: Vec::new(),
        names: scenario.classes.iter().map(names).collect(),
        ended: Vec::new(),
        turn_nanos: u64::MAX,
        out: Vec::new(),
    };
    world.prepare();
    let end_nanos = nanos(scenario.seconds);
    while let Some(Reverse((now_nanos, _, event))) = world.events.pop() {
        if now_nanos > end_nanos {
            break;
        }
        world.happen(event, now_nanos);
        world.settle(now_nanos);
    }
    world.tally.close(end_nanos);
    Ok(world.tally)
}

impl World<'_> {
    fn prepare(&mut self) {
        self.at(0, Event::Scrape);
        self.at(0, Event::Report);
        for (class, of) in self.scenario.classes.iter().enumerate() {
            let first = self.comers.get_mut(class).map_or(0.0, |comers| comers.exponential(of.highest_rate()));
            self.at(nanos(first), Event::Come { class });
        }
        for change in &self.scenario.pool.changes {
            self.at(nanos(change.at_seconds), Event::Resize { endpoints: change.endpoints });
        }
        for point in 0..POINTS {
            self.at(nanos(self.scenario.seconds / POINTS as f64 * point as f64), Event::Look { point });
        }
    }

    fn at(&mut self, nanos: u64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((nanos, self.count, event)));
    }

    fn happen(&mut self, event: Event, now_nanos: u64) {
        match event {
            Event::Come { class } => self.come(class, now_nanos),
            Event::End { server, number } => self.end(server, number, now_nanos),
            Event::LosePatience { number } => self.lose_patience(number),
            Event::Look { point } => self.tally.look(point, self.servers.waiting()),
            Event::Report => {
                let ended = std::mem::take(&mut self.ended);
                if let Some(controller) = &mut self.controller {
                    controller.completed(REPORTER, &ended, now_nanos, &mut self.out);
                    // The list that a filter sends from time to time, so that its silence is not taken for its death.
                    controller.heard(REPORTER, now_nanos);
                }
                self.at(now_nanos + self.scenario.pool.report_millis * NANOS_PER_MILLI, Event::Report);
            }
            Event::Resize { endpoints } => self.servers.resize(endpoints),
            Event::Scrape => {
                if let Some(controller) = &mut self.controller {
                    controller.observe(&self.servers.samples(now_nanos), now_nanos, &mut self.out);
                }
                self.at(now_nanos + self.scenario.pool.scrape_millis * NANOS_PER_MILLI, Event::Scrape);
            }
            Event::Turn => {
                self.turn_nanos = u64::MAX;
                if let Some(controller) = &mut self.controller {
                    controller.turn(now_nanos, &mut self.out, |_| ());
                }
            }
        }
    }

    /// Carries out what was decided, and sets the alarm.
    fn settle(&mut self, now_nanos: u64) {
        while let Some(decided) = self.out.pop() {
            let Some(request) = self.requests.get(decided.tag as usize).copied() else { continue };
            let Request { class, flow, .. } = request;
            let (outcome, waited) = (decided.outcome, decided.waited_nanos);
            self.tally.decided(class.into(), flow.into(), outcome, waited, now_nanos);
            if outcome == Outcome::Dispatched {
                self.send(decided.tag, now_nanos);
            }
        }
        if let Some(next) = self.controller.as_ref().map(Controller::next_turn)
            && next < self.turn_nanos
        {
            self.turn_nanos = next;
            self.at(next.max(now_nanos), Event::Turn);
        }
    }

    fn come(&mut self, class: usize, now_nanos: u64) {
        let Some((of, random)) = self.scenario.classes.get(class).zip(self.comers.get_mut(class)) else { return };
        let highest = of.highest_rate();
        let next_nanos = now_nanos + nanos(random.exponential(highest));
        // Thinning: comers at the highest rate, of whom the share of the rate now is real.
        let is_real = random.unit() <= of.rate_at(now_nanos as f64 / 1e9) / highest;
        let flow = random.below(of.fairness_ids);
        let request = Request {
            class: class as u16,
            flow: flow as u16,
            prompt: random.length(of.prompt_tokens, of.spread),
            output: random.length(of.output_tokens, of.spread),
            came_nanos: now_nanos,
            server: usize::MAX,
        };
        self.at(next_nanos, Event::Come { class });
        if is_real {
            self.ask(request, now_nanos);
        }
    }

    fn ask(&mut self, request: Request, now_nanos: u64) {
        let (class, flow) = (usize::from(request.class), usize::from(request.flow));
        let Some(of) = self.scenario.classes.get(class) else { return };
        let number = self.requests.len() as u32;
        self.requests.push(request);
        self.tally.asked(class, flow, request.tokens(), now_nanos);
        let Some(controller) = &mut self.controller else {
            self.tally.decided(class, flow, Outcome::Dispatched, 0, now_nanos);
            self.send(number, now_nanos);
            return;
        };
        let ask = Ask {
            fairness_id: self.names.get(class).and_then(|names| names.get(flow)).map_or("", String::as_str),
            priority: of.priority,
            bytes: u64::from(request.prompt) * BYTES_PER_TOKEN,
            patience_nanos: u64::from(of.patience_millis) * NANOS_PER_MILLI,
            first_token_nanos: u64::from(of.first_token_goal_millis) * NANOS_PER_MILLI,
            reporter: REPORTER,
            request: u64::from(number) + 1,
        };
        let flow = controller.flow(&ask, now_nanos);
        controller.enter(&ask, flow, number, now_nanos, &mut self.out);
    }

    fn send(&mut self, number: u32, now_nanos: u64) {
        let Some(request) = self.requests.get_mut(number as usize) else { return };
        let job = Job { number, prompt: request.prompt, output: request.output };
        let Some(server) = self.servers.send(job, &mut self.random) else { return };
        request.server = server;
        let (came_nanos, class) = (request.came_nanos, usize::from(request.class));
        self.begin(server, now_nanos);
        let patience = self.scenario.classes.get(class).map_or(0, |of| of.patience_millis);
        if patience > 0 {
            let end = came_nanos + u64::from(patience) * NANOS_PER_MILLI;
            self.at(end.max(now_nanos), Event::LosePatience { number });
        }
    }

    fn begin(&mut self, server: usize, now_nanos: u64) {
        while let Some(Begun { job, server, first_token_nanos, end_nanos }) = self.servers.begin(server, now_nanos) {
            self.at(end_nanos, Event::End { server, number: job.number });
            let Some(request) = self.requests.get(job.number as usize) else { continue };
            let class = usize::from(request.class);
            let goal = self.scenario.classes.get(class).map_or(0, |of| of.first_token_goal_millis);
            let took = first_token_nanos - request.came_nanos;
            let goal_nanos = u64::from(goal) * NANOS_PER_MILLI;
            self.tally.served(class, usize::from(request.flow), request.tokens());
            self.tally.first_token(class, request.came_nanos, took, goal_nanos, u64::from(job.output));
        }
    }

    fn end(&mut self, server: usize, number: u32, now_nanos: u64) {
        let Some(request) = self.requests.get(number as usize).copied() else { return };
        self.servers.end(server, Job { number, prompt: request.prompt, output: request.output });
        self.report_end(number, request);
        self.begin(server, now_nanos);
    }

    /// Only a request that still waits inside a server can be given up; one that runs is let run.
    fn lose_patience(&mut self, number: u32) {
        let Some(request) = self.requests.get(number as usize).copied() else { return };
        if self.servers.give_up(request.server, number) {
            if let Some(class) = self.tally.classes.get_mut(usize::from(request.class)) {
                class.left_server += 1;
            }
            self.report_end(number, Request { prompt: 0, output: 0, ..request });
        }
    }

    fn report_end(&mut self, number: u32, request: Request) {
        if self.controller.is_some() {
            let (prompt_tokens, output_tokens) = (u64::from(request.prompt), u64::from(request.output));
            self.ended.push(Completed { request: u64::from(number) + 1, prompt_tokens, output_tokens });
        }
    }
}

impl Request {
    const fn tokens(self) -> u64 {
        self.prompt as u64 + self.output as u64
    }
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

const NANOS_PER_MILLI: u64 = 1_000_000;
/// The one Envoy there is.
const REPORTER: u64 = 1;
/// Of English text, about.
const BYTES_PER_TOKEN: u64 = 4;
