//! Endpoints from a name: all its addresses.
//!
//! In: a host name. Out: its A and AAAA addresses as the system's resolver gives them, when they change.
//! A failed look-up leaves the last set as it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::{LOOK_EVERY, Target, Targets, publish};

pub(super) async fn run(name: String, port: u16, pool: Arc<str>, sender: watch::Sender<Targets>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut is_failing = false;
    loop {
        ticks.tick().await;
        match tokio::net::lookup_host((name.as_str(), port)).await {
            Ok(addresses) => {
                let addresses: BTreeSet<_> = addresses.map(|address| address.ip()).collect();
                publish(&sender, addresses.iter().map(|ip| Target::at(&ip.to_string(), port)).collect());
                is_failing = false;
            }
            Err(error) if !is_failing => {
                tracing::warn!(%pool, name, %error, "look-up failed; the endpoints stay as they were");
                is_failing = true;
            }
            Err(_) => {}
        }
    }
}
