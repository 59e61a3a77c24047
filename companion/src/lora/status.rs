//! What the syncer shows: `/metrics`, `/healthz`, `/readyz`.
//!
//! In: what the loop reports. Out: Prometheus text and one-line answers. It never decides anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tally_core::catalog::lora;
use tally_core::exposition::{Format, Writer};

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
    /// Why the Pod is not ready yet, apart from the configuration.
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
        let mut page = Writer::new(Format::Text);
        let mut family = page.family(&lora::ADAPTER_STATUS);
        for (id, is_loaded) in &self.adapters {
            family.sample(&[("adapter_name", id)], f64::from(u8::from(*is_loaded)));
        }
        let mut family = page.family(&lora::RECONCILES_TOTAL);
        for (result, count) in &self.reconciles {
            family.sample(&[("result", result)], *count as f64);
        }
        page.family(&lora::RECONCILE_DURATION).sample(&[], self.duration.as_secs_f64());
        let mut family = page.family(&lora::ERRORS_TOTAL);
        for ((id, reason), count) in &self.errors {
            family.sample(&[("adapter_name", id), ("reason", reason)], *count as f64);
        }
        if let Some(at) = self.last_success {
            let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            page.family(&lora::LAST_SUCCESS).sample(&[], seconds);
        }
        page.family(&lora::CONFIG_GENERATION).sample(&[], self.generation as f64);
        page.family(&lora::CONFIG_VALID).sample(&[], f64::from(u8::from(self.is_config_valid)));
        page.finish()
    }
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
    ([(header::CONTENT_TYPE, Format::Text.content_type())], status.lock().page())
}

async fn ready(State(status): State<Arc<Status>>) -> (StatusCode, String) {
    let shown = status.lock();
    match (&shown.waits_for, shown.generation) {
        (_, 0) => (StatusCode::SERVICE_UNAVAILABLE, "no good configuration yet\n".to_owned()),
        (Some(reason), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        (None, _) => (StatusCode::OK, "ok\n".to_owned()),
    }
}
