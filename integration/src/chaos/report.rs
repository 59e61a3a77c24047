//! The table of a chaos run.
//!
//! In: what was found after each fault. Out: rows, a verdict, Markdown.

use std::fmt::Write;
use std::time::Duration;

use super::world::Found;

/// What is said of a fault in words at most.
const MOST_TOLD: usize = 5;

/// One kind of fault.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// How often it was brought about.
    pub times: u64,
    /// Requests while it lasted, and until all was looked at.
    pub requests: u64,
    /// Not counted.
    pub lost: u64,
    /// How many might have been lost: only a trap of the filter's own VM may lose any.
    pub allowed: u64,
    /// Counted twice or under another name.
    pub twice: u64,
    /// Envoys that ended by themselves.
    pub crashes: u64,
    /// What was not as it should be.
    pub wrong: Vec<String>,
    /// Why it was not brought about.
    pub not_run: Option<String>,
}

/// The whole run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Of the schedule.
    pub seed: u64,
    /// How long it took.
    pub took: Duration,
    /// By fault.
    pub rows: Vec<Row>,
}

impl Row {
    /// Is all as it should be?
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.wrong.is_empty() && self.twice == 0 && self.lost <= self.allowed && self.crashes == 0
    }

    fn verdict(&self) -> &'static str {
        match (self.is_good(), self.times) {
            (false, _) => "FAILED",
            (true, 0) => "not run",
            _ => "good",
        }
    }

    fn lost(&self) -> String {
        if self.allowed > 0 { format!("{} (at most {})", self.lost, self.allowed) } else { self.lost.to_string() }
    }
}

impl Report {
    pub(crate) fn new(seed: u64, names: impl Iterator<Item = &'static str>) -> Self {
        let rows = names.map(|name| Row { name, ..Row::default() }).collect();
        Self { seed, took: Duration::ZERO, rows }
    }

    pub(crate) fn enter(&mut self, name: &str, found: &Found) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.name == name) {
            row.times += 1;
            row.requests += found.requests;
            row.lost += found.lost;
            row.allowed += found.allowed;
            row.twice += found.twice;
            row.crashes += u64::from(found.has_crashed);
            row.wrong.extend(found.wrong.iter().cloned());
        }
    }

    pub(crate) fn not_run(&mut self, name: &str, reason: &str) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.name == name) {
            row.not_run = Some(reason.to_owned());
        }
    }

    pub(crate) fn verdict(&self, name: &str) -> &'static str {
        self.rows.iter().find(|row| row.name == name).map_or("", Row::verdict)
    }

    /// Is all as it should be?
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(Row::is_good)
    }

    /// The table, and in words what is not as it should be.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::from(
            "| fault | times | requests | lost | twice | Envoy crashed | verdict |\n|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let (name, times, requests, twice) = (row.name, row.times, row.requests, row.twice);
            let (lost, crashes, verdict) = (row.lost(), row.crashes, row.verdict());
            let _ = writeln!(out, "| {name} | {times} | {requests} | {lost} | {twice} | {crashes} | {verdict} |");
        }
        let sum = |of: fn(&Row) -> u64| self.rows.iter().map(of).sum::<u64>();
        let [times, requests, lost] = [sum(|row| row.times), sum(|row| row.requests), sum(|row| row.lost)];
        let [twice, crashes] = [sum(|row| row.twice), sum(|row| row.crashes)];
        let verdict = if self.is_good() { "good" } else { "FAILED" };
        let _ = writeln!(out, "| **all** | {times} | {requests} | {lost} | {twice} | {crashes} | {verdict} |");
        for row in self.rows.iter().filter(|row| row.not_run.is_some()) {
            let _ = writeln!(out, "\nNot run: {}: {}", row.name, row.not_run.as_deref().unwrap_or_default());
        }
        out
    }

    /// What is not as it should be, in words.
    #[must_use]
    pub fn troubles(&self) -> String {
        let mut out = String::new();
        for row in self.rows.iter().filter(|row| !row.is_good()) {
            let _ = writeln!(out, "{}:", row.name);
            for wrong in row.wrong.iter().take(MOST_TOLD) {
                let _ = writeln!(out, "  {wrong}");
            }
            if row.lost > row.allowed {
                let _ = writeln!(out, "  {} lost, {} allowed", row.lost, row.allowed);
            }
        }
        out
    }
}
