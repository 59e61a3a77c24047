//! The configuration file, section by section.
//!
//! In: its text. Out: what it says, nothing filled in; or the first mistake with line and key. It knows no defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{duration, only, path, word};
use super::{AdminAddress, AuthMode, CacheTimes, EnvoyAdmin, LogFormat, Tls};
use crate::yaml::{ConfigError, Document, Tree};

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) address: Option<SocketAddr>,
    pub(super) flow: Option<SocketAddr>,
    pub(super) flow_health: Option<SocketAddr>,
    pub(super) linger: Option<Duration>,
    pub(super) drain: Option<Duration>,
    pub(super) tls: Option<Tls>,
    pub(super) auth_mode: Option<AuthMode>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) audiences: Vec<String>,
    pub(super) cache: CacheTimes,
    pub(super) is_open_forced: Option<bool>,
    pub(super) envoy: Vec<EnvoyAdmin>,
    pub(super) is_pprof_on: Option<bool>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) log_filter: Option<String>,
}

impl File {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut file = Self::default();
        if text.trim().is_empty() {
            return Ok(file);
        }
        let document = Document::parse(text)?;
        let root = document.root();
        if root.is_null() {
            return Ok(file);
        }
        only(&root, SECTIONS)?;
        file.listen(&root)?;
        file.auth(&root)?;
        file.logging(&root)?;
        file.tls = root.get("tls").map(|tls| tls_files(&tls)).transpose()?;
        if let Some(list) = root.get("envoy") {
            file.envoy = list.list()?.iter().map(admin).collect::<Result<_, _>>()?;
        }
        if let Some(pprof) = root.get("pprof") {
            only(&pprof, &["enabled"])?;
            file.is_pprof_on = pprof.get("enabled").map(|on| on.boolean()).transpose()?;
        }
        Ok(file)
    }

    fn listen(&mut self, root: &Tree<'_>) -> Result<(), ConfigError> {
        let Some(listen) = root.get("listen") else { return Ok(()) };
        only(&listen, &["address", "flow", "flow_health", "linger", "drain"])?;
        let address = |key| {
            let read = |value: Tree<'_>| {
                let parsed = value.text().ok().and_then(|text| text.parse().ok());
                parsed.ok_or_else(|| value.wrong("an address with a port, such as 0.0.0.0:9090"))
            };
            listen.get(key).map(read).transpose()
        };
        self.address = address("address")?;
        self.flow = address("flow")?;
        self.flow_health = address("flow_health")?;
        let time = |key| listen.get(key).map(|time| duration(&time, Duration::ZERO, MAX_STOP)).transpose();
        self.linger = time("linger")?;
        self.drain = time("drain")?;
        Ok(())
    }

    fn auth(&mut self, root: &Tree<'_>) -> Result<(), ConfigError> {
        let Some(auth) = root.get("auth") else { return Ok(()) };
        only(&auth, &["mode", "token_file", "kubeconfig", "audiences", "cache", "insecure_no_auth"])?;
        self.auth_mode = auth.get("mode").map(|mode| word(&mode)).transpose()?;
        self.token_file = auth.get("token_file").map(|file| path(&file)).transpose()?;
        self.kubeconfig = auth.get("kubeconfig").map(|file| path(&file)).transpose()?;
        self.is_open_forced = auth.get("insecure_no_auth").map(|on| on.boolean()).transpose()?;
        if let Some(list) = auth.get("audiences") {
            let texts = list.list()?;
            self.audiences = texts.iter().map(|text| text.text().map(str::to_owned)).collect::<Result<_, _>>()?;
        }
        if let Some(cache) = auth.get("cache") {
            self.cache = cache_times(&cache)?;
        }
        if self.auth_mode == Some(AuthMode::TokenFile) {
            auth.required("token_file", "the path of a file with tokens")?;
        }
        Ok(())
    }

    fn logging(&mut self, root: &Tree<'_>) -> Result<(), ConfigError> {
        let Some(logging) = root.get("logging") else { return Ok(()) };
        only(&logging, &["format", "level"])?;
        self.log_format = logging.get("format").map(|format| word(&format)).transpose()?;
        if let Some(level) = logging.get("level") {
            let text = level.text()?;
            if text.parse::<tracing_subscriber::EnvFilter>().is_err() {
                return Err(level.wrong("a level, or levels by module such as info,tallyd::auth=debug"));
            }
            self.log_filter = Some(text.to_owned());
        }
        Ok(())
    }
}

fn cache_times(cache: &Tree<'_>) -> Result<CacheTimes, ConfigError> {
    only(cache, &["token", "bad_token", "allow", "deny"])?;
    let mut times = CacheTimes::default();
    for (key, time) in [
        ("token", &mut times.token),
        ("bad_token", &mut times.bad_token),
        ("allow", &mut times.allow),
        ("deny", &mut times.deny),
    ] {
        if let Some(value) = cache.get(key) {
            *time = duration(&value, Duration::ZERO, MAX_CACHE)?;
        }
    }
    Ok(times)
}

fn tls_files(tls: &Tree<'_>) -> Result<Tls, ConfigError> {
    only(tls, &["certificate", "key", "client_ca"])?;
    Ok(Tls {
        certificate: path(&tls.required("certificate", "the path of a PEM file")?)?,
        key: path(&tls.required("key", "the path of a PEM file")?)?,
        client_ca: tls.get("client_ca").map(|file| path(&file)).transpose()?,
    })
}

fn admin(entry: &Tree<'_>) -> Result<EnvoyAdmin, ConfigError> {
    only(entry, &["url", "unix", "name", "interval", "timeout", "also"])?;
    let at = match (entry.get("url"), entry.get("unix")) {
        (Some(url), None) => url.text().ok().and_then(AdminAddress::parse).ok_or_else(|| url.wrong(ADMIN))?,
        (None, Some(socket)) => AdminAddress::Unix(path(&socket)?),
        _ => return Err(entry.problem("expected either `url` or `unix`".to_owned())),
    };
    let mut admin = EnvoyAdmin::at(at);
    if let Some(name) = entry.get("name") {
        name.text()?.clone_into(&mut admin.name);
    }
    if let Some(interval) = entry.get("interval") {
        admin.interval = duration(&interval, MIN_INTERVAL, MAX_INTERVAL)?;
    }
    if let Some(timeout) = entry.get("timeout") {
        admin.timeout = duration(&timeout, MIN_INTERVAL, MAX_INTERVAL)?;
    }
    if let Some(also) = entry.get("also") {
        // The whole name has to match, as in Prometheus' own configuration.
        let pattern = format!("^(?:{})$", also.text()?);
        admin.also = Some(regex::Regex::new(&pattern).map_err(|_| also.wrong("a regular expression"))?);
    }
    Ok(admin)
}

const SECTIONS: &[&str] = &["listen", "tls", "auth", "envoy", "pools", "flow_control", "pprof", "logging"];
/// Also for the flag.
pub(super) const ADMIN: &str = "an address such as http://127.0.0.1:9901 or unix:///run/envoy/admin.sock";
const MIN_INTERVAL: Duration = Duration::from_millis(50);
const MAX_INTERVAL: Duration = Duration::from_secs(300);
/// A right that was taken away must not live on for long.
const MAX_CACHE: Duration = Duration::from_secs(3600);
/// Longer than any pod's grace period.
const MAX_STOP: Duration = Duration::from_secs(3600);
