//! Endpoints from a name.
//!
//! In: a host name, or a name of SRV records. Out: all its addresses, when they change. Addresses come from the system's
//! resolver, SRV records from the servers in `/etc/resolv.conf`. A failed look-up leaves the last set as it is.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use tokio::sync::watch;

use super::{LOOK_EVERY, MAX_TARGETS, Target, Targets, publish};

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
        /// Who is asked; `None`: the servers in `/etc/resolv.conf`.
        server: Option<SocketAddr>,
    },
}

pub(super) async fn run(name: DnsName, pool: Arc<str>, sender: watch::Sender<Targets>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut is_failing = false;
    loop {
        ticks.tick().await;
        let found = match &name {
            DnsName::Addresses { name, port } => addresses(name, *port).await,
            DnsName::Services { name, server } => services(name, *server).await,
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

/// The records' targets. Their addresses are looked up when they are connected to, but those that only `server` may know:
/// they are asked for here, and the first one counts.
async fn services(name: &str, server: Option<SocketAddr>) -> Result<Vec<Target>, String> {
    // Made anew each time: it holds no connection, and `/etc/resolv.conf` may have changed.
    let resolver = resolver(server).map_err(|error| error.to_string())?;
    let found = resolver.srv_lookup(name).await.map_err(|error| error.to_string())?;
    let mut targets = Vec::new();
    for record in found.answers().iter().take(MAX_TARGETS) {
        let RData::SRV(service) = &record.data else { continue };
        let host = service.target.to_ascii();
        let mut target = Target::at(host.trim_end_matches('.'), service.port);
        if server.is_some() {
            let addresses = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
            let Some(address) = addresses.iter().min() else { continue };
            target.host = address.to_string().into();
        }
        targets.push(target);
    }
    Ok(targets)
}

fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let Some(server) = server else { return TokioResolver::builder_tokio()?.build() };
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let name_server = NameServerConfig::new(server.ip(), true, connections.to_vec());
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server]);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()
}
