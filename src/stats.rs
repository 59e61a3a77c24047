//! Core's [`Sink`] over Envoy's stats.
//!
//! In: names and deltas. Out: calls to Envoy. Failures are remembered by call, so that they can be counted; none is fatal.

use proxy_wasm::types::MetricType;
use tally_core::table::{Sink, StatKind};

use crate::host::{self, HostError};

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct EnvoyStats {
    failures: Vec<&'static str>,
}

impl EnvoyStats {
    /// The calls that failed.
    pub(crate) fn failures(self) -> Vec<&'static str> {
        self.failures
    }

    fn note<T>(&mut self, result: Result<T, HostError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(HostError { call }) => {
                self.failures.push(call);
                None
            }
        }
    }
}

impl Sink for EnvoyStats {
    fn define(&mut self, kind: StatKind, name: &str) -> Option<u32> {
        let kind = match kind {
            StatKind::Counter => MetricType::Counter,
            StatKind::Gauge => MetricType::Gauge,
            StatKind::Histogram => MetricType::Histogram,
        };
        self.note(host::define_metric(kind, name))
    }

    fn add(&mut self, id: u32, delta: i64) {
        self.note(host::increment_metric(id, delta));
    }

    fn set(&mut self, id: u32, value: u64) {
        self.note(host::record_metric(id, value));
    }
}
