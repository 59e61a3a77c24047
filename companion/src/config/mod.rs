//! What `tallyd serve` is told: flags, a YAML file, and defaults that are safe without either.
//!
//! In: the command line ([`ServeArgs`]) and the text of one file. Out: a [`Config`], or one sentence with file, line, key
//! and what was expected. Flags win over the file, the file over the defaults. It never opens a socket.

mod args;
mod doubts;
pub(crate) mod duration;
mod file;
mod sections;
pub(crate) mod value;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::flow::config::FlowPlan;
use crate::pool::PoolPlan;
pub use args::{AuthMode, LogFormat, PoolFlags, ServeArgs};

/// Everything that `tallyd serve` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the pages are.
    pub listen: Listen,
    /// Certificates; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Who may read the pages.
    pub auth: Auth,
    /// Envoys whose families are on the page.
    pub envoy: Vec<EnvoyAdmin>,
    /// Pools to scrape.
    pub pools: Vec<PoolPlan>,
    /// Flow control; `None`: nobody is held back.
    pub flow: Option<FlowPlan>,
    /// Are there profiles?
    pub is_pprof_on: bool,
    /// How logs look.
    pub logging: Logging,
}

/// The listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0: any free one.
    pub address: SocketAddr,
    /// Where Envoys ask flow control.
    pub flow: SocketAddr,
    /// Where gRPC health of flow control is answered.
    pub flow_health: SocketAddr,
    /// A file to write the real address to, once connections are accepted.
    pub address_file: Option<PathBuf>,
    /// After SIGTERM: how long connections are still accepted, with `/readyz` saying no.
    pub linger: Duration,
    /// After that: how long answers under way may take.
    pub drain: Duration,
}

/// Files of certificates in PEM; read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The server's chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities; with them a client has to show a certificate that one of them signed.
    pub client_ca: Option<PathBuf>,
}

/// Who may read the pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Whoever Kubernetes says may `get` the path.
    Kubernetes {
        /// How to reach the API; `None`: as a pod does, else as kubectl does.
        kubeconfig: Option<PathBuf>,
        /// Audiences a token must be for; empty: the API server's own.
        audiences: Vec<String>,
        /// How long answers are kept.
        times: CacheTimes,
    },
    /// Anybody who can reach the port.
    None,
    /// Whoever shows a token of this file.
    TokenFile(PathBuf),
}

/// How long the Kubernetes API's answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheTimes {
    /// Whose token it is.
    pub token: Duration,
    /// That it is nobody's.
    pub bad_token: Duration,
    /// That a user may.
    pub allow: Duration,
    /// That a user may not.
    pub deny: Duration,
}

impl Default for CacheTimes {
    /// EPP's; bad tokens are kept shorter, so that an account just made is not kept out for long.
    fn default() -> Self {
        Self {
            token: Duration::from_secs(60),
            bad_token: Duration::from_secs(10),
            allow: Duration::from_secs(300),
            deny: Duration::from_secs(30),
        }
    }
}

/// One Envoy.
#[derive(Clone, Debug)]
pub struct EnvoyAdmin {
    /// Its name on the page.
    pub name: String,
    /// Where its admin listens.
    pub at: AdminAddress,
    /// Time between reads.
    pub interval: Duration,
    /// Longest time that one read may take.
    pub timeout: Duration,
    /// Families besides the catalog's, by name.
    pub also: Option<regex::Regex>,
}

/// Where an Envoy's admin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// `host:port`, plain HTTP.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

/// How logs look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// Levels by module, as `info,tallyd::auth=debug`.
    pub filter: String,
}

impl Config {
    /// From the command line and the file it names.
    ///
    /// # Errors
    /// One sentence for the person who wrote them.
    pub fn load(args: &ServeArgs) -> Result<Self, String> {
        let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let Some(path) = &args.config else { return Self::build(args, "", in_cluster) };
        let text = read(path)?;
        Self::build(args, &text, in_cluster).map_err(|problem| format!("{}: {problem}", path.display()))
    }

    /// One line for `tallyd config check`.
    #[must_use]
    pub fn summary(&self) -> String {
        let auth = match &self.auth {
            Auth::Kubernetes { .. } => "kubernetes",
            Auth::None => "none",
            Auth::TokenFile(_) => "token-file",
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let flow = self.flow.as_ref().map_or_else(|| "off".to_owned(), |_| self.listen.flow.to_string());
        format!(
            "{scheme}://{}, auth {auth}, {} Envoy(s), {} pool(s), flow control {flow}",
            self.listen.address,
            self.envoy.len(),
            self.pools.len()
        )
    }

    /// Pure: the same from the file's text.
    ///
    /// # Errors
    /// One sentence for the person who wrote them.
    pub fn build(args: &ServeArgs, text: &str, in_cluster: bool) -> Result<Self, String> {
        let file = file::File::parse(text).map_err(|error| error.to_string())?;
        let auth = auth(args, &file, in_cluster)?;
        let tls = args.tls()?.or_else(|| file.tls.clone());
        let asks_for_certificates = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let listen = listen(args, &file, auth == Auth::None && !asks_for_certificates)?;
        let mut envoy = file.envoy;
        for url in &args.envoy {
            let at = AdminAddress::parse(url).ok_or_else(|| format!("--envoy {url}: expected {}", file::ADMIN))?;
            envoy.push(EnvoyAdmin::at(at));
        }
        for (index, admin) in envoy.iter().enumerate() {
            if envoy.iter().take(index).any(|earlier| earlier.name == admin.name) {
                return Err(format!("envoy: two entries are named {}; give each its own `name`", admin.name));
            }
        }
        let parts = sections::Parts::parse(text, &args.pool)?;
        Ok(Self {
            listen,
            tls,
            auth,
            envoy,
            pools: parts.pools,
            flow: parts.flow,
            is_pprof_on: args.enable_pprof.or(file.is_pprof_on).unwrap_or(true),
            logging: Logging {
                format: args.log_format.or(file.log_format).unwrap_or(LogFormat::Text),
                filter: args.log_level.clone().or(file.log_filter).unwrap_or_else(|| "info".to_owned()),
            },
        })
    }
}

impl EnvoyAdmin {
    /// With the defaults.
    #[must_use]
    pub fn at(at: AdminAddress) -> Self {
        let name = match &at {
            AdminAddress::Tcp(authority) => authority.clone(),
            AdminAddress::Unix(path) => path.display().to_string(),
        };
        Self { name, at, interval: ENVOY_INTERVAL, timeout: ENVOY_TIMEOUT, also: None }
    }
}

impl AdminAddress {
    /// From `http://host:port`, `host:port` or `unix:///path`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return path.starts_with('/').then(|| Self::Unix(PathBuf::from(path)));
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let uri: http::Uri = format!("http://{authority}/").parse().ok()?;
        let is_whole = uri.path() == "/" && uri.query().is_none() && uri.port_u16().is_some();
        (is_whole && !authority.contains('@')).then(|| Self::Tcp(authority.to_owned()))
    }
}

fn auth(args: &ServeArgs, file: &file::File, in_cluster: bool) -> Result<Auth, String> {
    let token_file = args.token_file.clone().or_else(|| file.token_file.clone());
    let default = match (&token_file, in_cluster) {
        (Some(_), _) => AuthMode::TokenFile,
        (None, true) => AuthMode::Kubernetes,
        (None, false) => AuthMode::None,
    };
    // EPP's switch names no mode: on keeps what is chosen elsewhere, unless that is none.
    let chosen = args.auth.or(file.auth_mode);
    let mode = match (args.auth, args.metrics_endpoint_auth) {
        (Some(mode), _) => mode,
        (None, Some(false)) => AuthMode::None,
        (None, Some(true)) => match chosen.unwrap_or(default) {
            AuthMode::None => AuthMode::Kubernetes,
            mode => mode,
        },
        (None, None) => chosen.unwrap_or(default),
    };
    Ok(match mode {
        AuthMode::Kubernetes => Auth::Kubernetes {
            kubeconfig: args.kubeconfig.clone().or_else(|| file.kubeconfig.clone()),
            audiences: file.audiences.clone(),
            times: file.cache,
        },
        AuthMode::None => Auth::None,
        AuthMode::TokenFile => Auth::TokenFile(
            token_file.ok_or("auth.token_file: expected the path of a file with tokens, found nothing")?,
        ),
    })
}

/// Pages that are for everybody stay on this machine, unless forced: model names and queue lengths are nobody else's.
fn listen(args: &ServeArgs, file: &file::File, is_for_all: bool) -> Result<Listen, String> {
    let is_open = is_for_all && !(args.insecure_no_auth || file.is_open_forced.unwrap_or(false));
    let host = if is_open { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let mut address = args.listen.or(file.address).unwrap_or_else(|| SocketAddr::new(host, DEFAULT_PORT));
    if let Some(port) = args.metrics_port {
        address.set_port(port);
    }
    if is_open && !address.ip().is_loopback() {
        return Err(format!(
            "listen: {address} can be reached from other machines and auth is none; set auth.mode, or say \
             --insecure-no-auth (auth.insecure_no_auth: true) if that is meant"
        ));
    }
    Ok(Listen {
        address,
        flow: with_port(args.grpc_port, file.flow, host, DEFAULT_FLOW_PORT),
        flow_health: with_port(args.grpc_health_port, file.flow_health, host, DEFAULT_FLOW_HEALTH_PORT),
        address_file: args.address_file.clone(),
        linger: file.linger.unwrap_or(Duration::ZERO),
        drain: file.drain.unwrap_or(DEFAULT_DRAIN),
    })
}

/// The flag's port, at the file's address or the default one.
fn with_port(port: Option<u16>, address: Option<SocketAddr>, host: IpAddr, default: u16) -> SocketAddr {
    let mut address = address.unwrap_or_else(|| SocketAddr::new(host, default));
    if let Some(port) = port {
        address.set_port(port);
    }
    address
}

fn read(path: &Path) -> Result<String, String> {
    let fails = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut text = String::new();
    std::fs::File::open(path).map_err(fails)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(fails)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{}: longer than {MAX_FILE_BYTES} bytes", path.display()));
    }
    Ok(text)
}

/// EPP's.
const DEFAULT_PORT: u16 = 9090;
const DEFAULT_FLOW_PORT: u16 = 9002;
const DEFAULT_FLOW_HEALTH_PORT: u16 = 9003;
const DEFAULT_DRAIN: Duration = Duration::from_secs(10);
/// Below the shortest scrape interval in use, so that a page is never older than a scrape.
const ENVOY_INTERVAL: Duration = Duration::from_secs(1);
const ENVOY_TIMEOUT: Duration = Duration::from_secs(5);
/// A ConfigMap holds at most 1 MiB; a longer file is an error.
const MAX_FILE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
