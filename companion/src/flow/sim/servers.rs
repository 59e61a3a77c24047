//! Model servers in virtual time: slots, a queue inside, a KV cache, and writing that slows as more run.
//!
//! In: requests sent to the pool, the time. Out: which start when and how long they take; samples as
//! a scrape would see them. It never knows a class or a priority: that is the point.

use std::collections::VecDeque;

use super::random::Random;
use super::scenario::Pool;
use crate::flow::saturation::EndpointSample;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Servers {
    plan: Pool,
    servers: Vec<Server>,
    alive: usize,
}

#[derive(Debug, Default)]
struct Server {
    running: usize,
    tokens: u64,
    waiting: VecDeque<Job>,
}

/// What a server knows of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) number: u32,
    pub(super) prompt: u32,
    pub(super) output: u32,
}

/// A request that begins to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) job: Job,
    pub(super) server: usize,
    pub(super) first_token_nanos: u64,
    pub(super) end_nanos: u64,
}

impl Servers {
    pub(super) fn new(plan: Pool) -> Self {
        let servers = std::iter::repeat_with(Server::default).take(plan.endpoints).collect();
        Self { alive: plan.endpoints, servers, plan }
    }

    /// From now on so many take requests.
    pub(super) fn resize(&mut self, endpoints: usize) {
        while self.servers.len() < endpoints {
            self.servers.push(Server::default());
        }
        self.alive = endpoints;
    }

    /// As Envoy's least-request balancer: of two at random, the one with less to do. Returns the server.
    pub(super) fn send(&mut self, job: Job, random: &mut Random) -> Option<usize> {
        if self.alive == 0 {
            return None;
        }
        let (one, other) = (random.below(self.alive), random.below(self.alive));
        let load = |at: usize| self.servers.get(at).map_or(usize::MAX, |server| server.running + server.waiting.len());
        let at = if load(other) < load(one) { other } else { one };
        self.servers.get_mut(at)?.waiting.push_back(job);
        Some(at)
    }

    /// Begins the next request of a server's queue, if a slot and the cache allow.
    pub(super) fn begin(&mut self, at: usize, now_nanos: u64) -> Option<Begun> {
        let server = self.servers.get_mut(at)?;
        let job = *server.waiting.front()?;
        let fits = server.tokens + job.tokens() <= self.plan.kv_cache_tokens || server.running == 0;
        if server.running >= self.plan.max_running || !fits {
            return None;
        }
        server.waiting.pop_front();
        server.tokens += job.tokens();
        let rate = self.plan.decode_tokens_per_second / (1.0 + self.plan.slowdown * server.running as f64);
        server.running += 1;
        let first = f64::from(job.prompt) / self.plan.prefill_tokens_per_second + 1.0 / rate;
        let all = first + f64::from(job.output.saturating_sub(1)) / rate;
        let after = |seconds: f64| now_nanos + (seconds * 1e9) as u64;
        Some(Begun { job, server: at, first_token_nanos: after(first), end_nanos: after(all) })
    }

    pub(super) fn end(&mut self, at: usize, job: Job) {
        if let Some(server) = self.servers.get_mut(at) {
            server.running -= 1;
            server.tokens -= job.tokens();
        }
    }

    /// Takes a request out of a server's queue; false if it runs already.
    pub(super) fn give_up(&mut self, at: usize, number: u32) -> bool {
        let Some(server) = self.servers.get_mut(at) else { return false };
        let before = server.waiting.len();
        server.waiting.retain(|job| job.number != number);
        server.waiting.len() < before
    }

    /// What a scrape would say.
    pub(super) fn samples(&self, now_nanos: u64) -> Vec<EndpointSample> {
        let sample = |server: &Server| EndpointSample {
            waiting: server.waiting.len() as f64,
            kv_usage: (server.tokens as f64 / self.plan.kv_cache_tokens as f64).min(1.0),
            sampled_nanos: Some(now_nanos),
        };
        self.servers.iter().take(self.alive).map(sample).collect()
    }

    /// Requests waiting inside servers.
    pub(super) fn waiting(&self) -> usize {
        self.servers.iter().map(|server| server.waiting.len()).sum()
    }
}

impl Job {
    const fn tokens(self) -> u64 {
        self.prompt as u64 + self.output as u64
    }
}
