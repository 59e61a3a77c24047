//! What the syncer shows: `/metrics`, `/healthz`, `/readyz`.
//!
//! In: what the loop reports. Out: Prometheus text and one-line answers. It never decides anything.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tally_core::catalog::{Family, Kind, lora};

/// Shared between the loop and the page.
#[derive(Debug, Default)]
pub(super) struct Status(Mutex<Shown>);

/// Everything the page says.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Adapters and whether they are loaded as asked.
    pub(super) adapters: BTreeMap<String, bool>,
    /// Runs by result: ok, partial, failed.
    pub(super) reconciles: BTreeMap<&'static str, u64>,
    /// Duration of the last run.
    pub(super) duration: Duration,
    /// Failed calls by adapter and reason.
    pub(super) errors: BTreeMap<(String, &'static str), u64>,
    /// When everything was last as asked.
    pub(super) last_success: Option<SystemTime>,
    /// Good files read.
    pub(super) generation: u64,
    /// Is the newest file good?
    pub(super) is_config_valid: bool,
    /// Why the Pod is not ready yet; empty if it is.
    pub(super) waits_for: Option<String>,
}

impl Status {
    /// For a short look or change.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// Counts a failed call; adapters that are no longer shown lose their counts with their series.
    pub(super) fn count_error(&mut self, adapter: &str, reason: &'static str) {
        *self.errors.entry((adapter.to_owned(), reason)).or_default() += 1;
    }

    /// Takes over the adapters' states and drops what belongs to vanished ones.
    pub(super) fn set_adapters<'a>(&mut self, adapters: impl Iterator<Item = (&'a str, bool)>) {
        self.adapters = adapters.map(|(id, is_loaded)| (id.to_owned(), is_loaded)).collect();
        self.errors.retain(|(id, _), _| id.is_empty() || self.adapters.contains_key(id));
    }

    fn page(&self) -> String {
        let mut page = String::new();
        family(&mut page, &lora::ADAPTER_STATUS);
        for (id, is_loaded) in &self.adapters {
            sample(&mut page, &lora::ADAPTER_STATUS, &[("adapter_name", id)], f64::from(u8::from(*is_loaded)));
        }
        family(&mut page, &lora::RECONCILES_TOTAL);
        for (result, count) in &self.reconciles {
            sample(&mut page, &lora::RECONCILES_TOTAL, &[("result", result)], *count as f64);
        }
        family(&mut page, &lora::RECONCILE_DURATION);
        sample(&mut page, &lora::RECONCILE_DURATION, &[], self.duration.as_secs_f64());
        family(&mut page, &lora::ERRORS_TOTAL);
        for ((id, reason), count) in &self.errors {
            sample(&mut page, &lora::ERRORS_TOTAL, &[("adapter_name", id), ("reason", reason)], *count as f64);
        }
        if let Some(at) = self.last_success {
            let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            family(&mut page, &lora::LAST_SUCCESS);
            sample(&mut page, &lora::LAST_SUCCESS, &[], seconds);
        }
        family(&mut page, &lora::CONFIG_GENERATION);
        sample(&mut page, &lora::CONFIG_GENERATION, &[], self.generation as f64);
        family(&mut page, &lora::CONFIG_VALID);
        sample(&mut page, &lora::CONFIG_VALID, &[], f64::from(u8::from(self.is_config_valid)));
        page
    }
}

fn family(page: &mut String, family: &Family) {
    let kind = if family.kind == Kind::Counter { "counter" } else { "gauge" };
    // Writing to a String cannot fail.
    let _ =
        writeln!(page, "# HELP {} {}{}\n# TYPE {} {kind}", family.name, Family::STABILITY, family.help, family.name);
}

fn sample(page: &mut String, family: &Family, labels: &[(&str, &str)], value: f64) {
    let escaped = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let pairs: Vec<_> = labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escaped(text))).collect();
    let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
    let _ = writeln!(page, "{}{labels} {value}", family.name);
}

/// The three pages.
pub(super) fn router(status: Arc<Status>) -> axum::Router {
    axum::Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(status)
}

async fn metrics(State(status): State<Arc<Status>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], status.lock().page())
}

async fn ready(State(status): State<Arc<Status>>) -> (StatusCode, String) {
    let shown = status.lock();
    match (&shown.waits_for, shown.generation) {
        (None, 1..) => (StatusCode::OK, "ok\n".to_owned()),
        (None, 0) => (StatusCode::SERVICE_UNAVAILABLE, "no good configuration yet\n".to_owned()),
        (Some(reason), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_adapter_name_stays_inside_its_label() {
        let mut shown = Shown::default();
        shown.set_adapters([("a\"} 1\nx{b=\"\\", true)].into_iter());
        assert!(shown.page().contains("lora_syncer_adapter_status{adapter_name=\"a\\\"} 1\\nx{b=\\\"\\\\\"} 1\n"));
    }
}
