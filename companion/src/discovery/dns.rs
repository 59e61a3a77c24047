//! Endpoints from a name.
//!
//! In: a host name, or a name of SRV records. Out: all its addresses, when they change. Addresses come from the system's
//! resolver, SRV records from the servers in `/etc/resolv.conf`. A failed look-up leaves the last set as it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use tokio::sync::watch;

use super::{LOOK_EVERY, Target, Targets, publish};

/// What to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsName {
    /// A and AAAA.
    Addresses {
        /// Host name.
        name: String,
        /// Port of each.
        port: u16,
    },
    /// SRV.
    Services {
        /// Name of the records.
        name: String,
    },
}

pub(super) async fn run(name: DnsName, pool: Arc<str>, sender: watch::Sender<Targets>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut is_failing = false;
    loop {
        ticks.tick().await;
        let found = match &name {
            DnsName::Addresses { name, port } => addresses(name, *port).await,
            DnsName::Services { name } => services(name).await,
        };
        match found {
            Ok(targets) => {
                publish(&sender, targets);
                is_failing = false;
            }
            Err(error) if !is_failing => {
                tracing::warn!(%pool, ?name, error, "look-up failed; the endpoints stay as they were");
                is_failing = true;
            }
            Err(_) => {}
        }
    }
}

async fn addresses(name: &str, port: u16) -> Result<Vec<Target>, String> {
    let found = tokio::net::lookup_host((name, port)).await.map_err(|error| error.to_string())?;
    let addresses: BTreeSet<_> = found.map(|address| address.ip()).collect();
    Ok(addresses.iter().map(|ip| Target::at(&ip.to_string(), port)).collect())
}

/// The records' targets by name: their addresses are looked up when they are connected to.
async fn services(name: &str) -> Result<Vec<Target>, String> {
    // Made anew each time: it holds no connection, and `/etc/resolv.conf` may have changed.
    let resolver =
        TokioResolver::builder_tokio().and_then(|builder| builder.build()).map_err(|error| error.to_string())?;
    let found = resolver.srv_lookup(name).await.map_err(|error| error.to_string())?;
    let target = |data: &RData| match data {
        RData::SRV(record) => Some(Target::at(record.target.to_ascii().trim_end_matches('.'), record.port)),
        _ => None,
    };
    Ok(found.answers().iter().filter_map(|record| target(&record.data)).collect())
}
