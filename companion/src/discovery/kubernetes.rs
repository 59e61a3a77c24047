//! Endpoints from Kubernetes: an InferencePool and the pods it selects, watched.
//!
//! In: events. Out: the set of endpoints, whole after each event. While the API can't be asked the last set stays.
//! It needs `get`, `list` and `watch` of pods and inferencepools in the pool's namespace, and writes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watch_object, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use super::pods::{Membership, PodFacts};
use super::{Targets, publish};

/// Whom to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesPlan {
    /// Namespace of the pool and of its pods.
    pub namespace: String,
    /// Which pods.
    pub pick: Pick,
    /// Replaces the target port of a pool that has a single one.
    pub metrics_port: Option<u16>,
    /// How to reach the API; `None`: as a pod does, else as kubectl does.
    pub kubeconfig: Option<PathBuf>,
}

/// Which pods are endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Those of an InferencePool.
    InferencePool {
        /// Its name.
        name: String,
        /// Its API group; `None`: whichever has it.
        group: Option<String>,
    },
    /// Those with these labels, without any InferencePool.
    Selector {
        /// As `app=vllm,tier=gpu`.
        labels: String,
        /// One endpoint of a pod for each.
        ports: Vec<u16>,
    },
}

type PodEvents = BoxStream<'static, watcher::Result<Event<Pod>>>;

struct Follower {
    pool: Arc<str>,
    plan: KubernetesPlan,
    pods: BTreeMap<String, PodFacts>,
    /// A list that is still coming in; it replaces `pods` when it is whole.
    listed: BTreeMap<String, PodFacts>,
    sender: watch::Sender<Targets>,
    is_complaining: bool,
}

pub(super) async fn run(plan: KubernetesPlan, pool: Arc<str>, sender: watch::Sender<Targets>) {
    let mut follower =
        Follower { pool, plan, pods: BTreeMap::new(), listed: BTreeMap::new(), sender, is_complaining: false };
    let client = loop {
        match crate::auth::kubernetes::client(follower.plan.kubeconfig.as_deref()).await {
            Ok(client) => break client,
            Err(error) => follower.complain(&format!("{error:#}")),
        }
        tokio::time::sleep(RETRY).await;
    };
    match follower.plan.pick.clone() {
        Pick::InferencePool { name, group } => loop {
            let found = follower.find(&client, &name, group.as_deref()).await;
            follower.inference_pool(&client, found, &name).await;
        },
        Pick::Selector { labels, ports } => {
            let membership = Membership { selector: labels, ports };
            let mut events = follower.pod_events(&client, &membership);
            while let Some(event) = events.next().await {
                follower.pod_event(event, &membership);
            }
        }
    }
}

impl Follower {
    /// Waits until one of the API's versions has the pool.
    async fn find(&mut self, client: &Client, name: &str, group: Option<&str>) -> Api<DynamicObject> {
        loop {
            let mut is_answered = true;
            for (known, version) in VERSIONS {
                if group.is_some_and(|group| group != known) {
                    continue;
                }
                let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(known, version, "InferencePool"));
                let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &self.plan.namespace, &kind);
                match api.get_opt(name).await {
                    Ok(Some(_)) => return api,
                    Ok(None) => {}
                    Err(error) => {
                        is_answered = false;
                        self.complain(&format!("inferencepools.{known}: {error}"));
                    }
                }
            }
            if is_answered {
                self.complain(&format!("there is no InferencePool {name} in namespace {}", self.plan.namespace));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Follows a pool until it is deleted.
    async fn inference_pool(&mut self, client: &Client, api: Api<DynamicObject>, name: &str) {
        let changes = watch_object(api, name).backoff(Patience::new());
        pin_mut!(changes);
        let mut membership: Option<Membership> = None;
        let mut events: PodEvents = stream::pending().boxed();
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(Some(object))) => match Membership::read(&object.data) {
                        Ok(newest) if membership.as_ref() == Some(&newest) => {}
                        Ok(newest) => {
                            events = self.pod_events(client, &newest);
                            membership = Some(newest);
                        }
                        Err(fault) => self.complain(&format!("InferencePool {name}: {fault}")),
                    },
                    Some(Err(error)) => self.complain(&format!("InferencePool {name}: {error}")),
                    Some(Ok(None)) | None => {
                        self.pods.clear();
                        publish(&self.sender, Vec::new());
                        return;
                    }
                },
                Some(event) = events.next() => {
                    if let Some(membership) = &membership {
                        self.pod_event(event, membership);
                    }
                }
            }
        }
    }

    fn pod_events(&self, client: &Client, membership: &Membership) -> PodEvents {
        let api: Api<Pod> = Api::namespaced(client.clone(), &self.plan.namespace);
        watcher(api, watcher::Config::default().labels(&membership.selector)).backoff(Patience::new()).boxed()
    }

    fn pod_event(&mut self, event: watcher::Result<Event<Pod>>, membership: &Membership) {
        match event {
            Ok(Event::Apply(pod)) => {
                self.pods.insert(pod.name_any(), PodFacts::from(&pod));
            }
            Ok(Event::Delete(pod)) => {
                self.pods.remove(&pod.name_any());
            }
            Ok(Event::Init) => {
                self.listed.clear();
                return;
            }
            Ok(Event::InitApply(pod)) => {
                self.listed.insert(pod.name_any(), PodFacts::from(&pod));
                return;
            }
            Ok(Event::InitDone) => self.pods = std::mem::take(&mut self.listed),
            Err(error) => return self.complain(&format!("pods: {error}")),
        }
        self.is_complaining = false;
        publish(&self.sender, membership.endpoints(&self.pods, self.plan.metrics_port));
    }

    /// Says what is wrong, once until it is right again.
    fn complain(&mut self, error: &str) {
        if !std::mem::replace(&mut self.is_complaining, true) {
            tracing::warn!(pool = %self.pool, error, "Kubernetes discovery waits; the endpoints stay as they were");
        }
    }
}

/// How long to wait before a watch is begun again. The runtime's own goes up to half a minute: too long not to know who
/// is in the pool after an API server was restarted.
struct Patience(Duration);

impl Patience {
    const fn new() -> Self {
        Self(SHORTEST_WAIT)
    }
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST_WAIT);
        // Not all at once: up to half more.
        Some(wait.mul_f64(1.0 + f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX) / 2.0))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.0 = SHORTEST_WAIT;
    }
}

/// Where an InferencePool may be, the present one first.
pub const VERSIONS: [(&str, &str); 2] =
    [("inference.networking.k8s.io", "v1"), ("inference.networking.x-k8s.io", "v1alpha2")];
const RETRY: Duration = Duration::from_secs(2);
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
