//! Kubernetes decides: TokenReview says who it is, SubjectAccessReview whether that one may.
//!
//! In: token, method in lower case as the verb, URL path. Out: leave, or a refusal. Answers are kept for a while; tokens
//! themselves are not, only their digests. While the API can't be asked, only kept answers let anybody in.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use ring::digest::{SHA256, digest};
use tokio::sync::Semaphore;

use super::Refusal;
use super::cache::Cache;
use crate::config::CacheTimes;

type Digest = [u8; 32];

/// Asks, and remembers.
pub(crate) struct Kubernetes {
    client: kube::Client,
    audiences: Vec<String>,
    times: CacheTimes,
    /// Who a token belongs to; `None`: nobody.
    users: Mutex<Cache<Digest, Option<UserInfo>>>,
    /// Whether a user may do something.
    rights: Mutex<Cache<Digest, bool>>,
    /// Bad tokens cost a call each: a flood of them must not become one of calls.
    calls: Semaphore,
    complaint: Mutex<Option<(String, Instant)>>,
}

/// The API can't be asked, or will not answer us.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}: {1}")]
    Call(&'static str, kube::Error),
    #[error("{0}: no answer within {1:?}")]
    Slow(&'static str, Duration),
}

/// A client for the API, as a kubeconfig says, or as kubectl and pods find it.
pub(crate) async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let name = || format!("kubeconfig {}", path.display());
            let file = Kubeconfig::read_from(path).with_context(name)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.with_context(name)?
        }
        None => kube::Config::infer().await.context("no Kubernetes API: neither in a pod nor with a kubeconfig")?,
    };
    config.connect_timeout = Some(CALL_TIMEOUT);
    kube::Client::try_from(config).context("the Kubernetes client")
}

impl Kubernetes {
    /// Over this client.
    pub(super) fn new(client: kube::Client, audiences: Vec<String>, times: CacheTimes) -> Self {
        Self {
            client,
            audiences,
            times,
            users: Mutex::new(Cache::new(MAX_ENTRIES)),
            rights: Mutex::new(Cache::new(MAX_ENTRIES)),
            calls: Semaphore::new(MAX_CALLS),
            complaint: Mutex::new(None),
        }
    }

    /// May the bearer of this token do this?
    pub(super) async fn check(&self, token: &str, verb: &str, path: &str) -> Result<(), Refusal> {
        let asked = async {
            let Some(user) = self.user(token).await? else { return Ok(Err(Refusal::Unauthenticated)) };
            let name = user.username.clone().unwrap_or_default();
            let may = self.may(user, verb, path).await?;
            Ok::<_, Fault>(if may { Ok(()) } else { Err(Refusal::Forbidden { user: name }) })
        };
        asked.await.unwrap_or_else(|fault| {
            self.complain(&fault);
            Err(Refusal::Unavailable)
        })
    }

    async fn user(&self, token: &str) -> Result<Option<UserInfo>, Fault> {
        let key = sha256(token.as_bytes());
        if let Some(known) = lock(&self.users).get(&key, Instant::now()) {
            return Ok(known);
        }
        let audiences = Some(self.audiences.clone()).filter(|audiences| !audiences.is_empty());
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences };
        let review = TokenReview { spec, ..TokenReview::default() };
        let status = self.call("TokenReview", review).await?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let holds = if user.is_some() { self.times.token } else { self.times.bad_token };
        let now = Instant::now();
        lock(&self.users).put(key, user.clone(), now, now + holds);
        Ok(user)
    }

    async fn may(&self, user: UserInfo, verb: &str, path: &str) -> Result<bool, Fault> {
        let spec = access(user, verb, path);
        let key = sha256(&serde_json::to_vec(&spec).unwrap_or_default());
        if let Some(known) = lock(&self.rights).get(&key, Instant::now()) {
            return Ok(known);
        }
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let status = self.call("SubjectAccessReview", review).await?.status;
        let may = is_allowed(status.as_ref());
        let holds = if may { self.times.allow } else { self.times.deny };
        let now = Instant::now();
        lock(&self.rights).put(key, may, now, now + holds);
        Ok(may)
    }

    async fn call<T>(&self, name: &'static str, review: T) -> Result<T, Fault>
    where
        T: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<T> = Api::all(self.client.clone());
        let call = async {
            let _place = self.calls.acquire().await;
            api.create(&PostParams::default(), &review).await
        };
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(answer) => answer.map_err(|error| Fault::Call(name, error)),
            Err(_) => Err(Fault::Slow(name, CALL_TIMEOUT)),
        }
    }

    /// The cause, in the log: once a while if it stays the same.
    fn complain(&self, fault: &Fault) {
        let problem = format!("{:#}", anyhow::Error::msg(fault.to_string()));
        let mut last = lock(&self.complaint);
        let is_old = last.as_ref().is_none_or(|(said, at)| *said != problem || at.elapsed() > SAY_AGAIN);
        if is_old {
            let hint = match fault {
                Fault::Call(_, kube::Error::Api(status)) if status.code == 403 => {
                    "tallyd's own account lacks a right: `tallyd doctor` prints the rule"
                }
                _ => "requests are answered 503 until the Kubernetes API answers",
            };
            tracing::warn!(problem, hint, "cannot check who may read");
            *last = Some((problem, Instant::now()));
        }
    }
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").field("times", &self.times).finish_non_exhaustive()
    }
}

/// The question whether a user may do `verb` at `path`.
pub(crate) fn access(user: UserInfo, verb: &str, path: &str) -> SubjectAccessReviewSpec {
    SubjectAccessReviewSpec {
        user: user.username,
        groups: user.groups,
        uid: user.uid,
        extra: user.extra,
        non_resource_attributes: Some(NonResourceAttributes {
            verb: Some(verb.to_owned()),
            path: Some(path.to_owned()),
        }),
        ..SubjectAccessReviewSpec::default()
    }
}

/// The answer to it.
pub(crate) fn is_allowed(status: Option<&SubjectAccessReviewStatus>) -> bool {
    status.is_some_and(|status| status.allowed && status.denied != Some(true))
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut key = Digest::default();
    key.copy_from_slice(digest(&SHA256, bytes).as_ref());
    key
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// EPP's.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Reviews at the same time; further requests wait, and get 503 if they wait too long.
const MAX_CALLS: usize = 8;
/// Kept answers of each kind; scrapers are few.
const MAX_ENTRIES: usize = 1024;
const SAY_AGAIN: Duration = Duration::from_secs(60);
