//! Whose a request is and how urgent: read from its head, where labels tell that.
//!
//! In: a request's head. Out: its [`Flow`]. Without such labels in the configuration it asks Envoy nothing.

use tally_core::config::Config;
use tally_core::exchange::{Exchange, Flow};

use crate::host;

/// Reads it; only in `on_http_request_headers`.
pub(crate) fn read(config: &Config, exchange: &mut Exchange) {
    if config.has_priorities() {
        let fairness_headers: &[String] = if config.profile.llm_d_epp { &config.fairness_headers } else { &[] };
        exchange.belongs_to(Flow {
            fairness_id: first(fairness_headers),
            priority: config.priority(&first(&config.objective_headers)),
        });
    }
}

/// The first of these headers that is there; empty if none is.
pub(crate) fn first(names: &[String]) -> Vec<u8> {
    names.iter().map(|name| host::request_header(name)).find(|value| !value.is_empty()).unwrap_or_default()
}
