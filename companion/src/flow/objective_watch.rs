//! InferenceObjective objects of a cluster, as priorities by name.
//!
//! In: a namespace, a pool perhaps, and the Kubernetes API. Out: [`Objectives`] kept in step. While the API is away the
//! last known priorities stay. It never writes to the API and never holds up a request.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::objectives::{MAX_OBJECTIVES, Objectives};

/// Where to look for InferenceObjective objects.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ObjectiveWatch {
    /// Their namespace: the pool's.
    pub namespace: String,
    /// Only those whose `poolRef` names this pool; absent: all of the namespace.
    #[serde(default)]
    pub pool: Option<String>,
    /// How to reach the API; absent: as a pod, else as kubectl does.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
}

/// Follows the objects until stopped.
pub(super) async fn follow(gate: Arc<Gate>, of: ObjectiveWatch, stop: CancellationToken) {
    let followed = async {
        loop {
            match crate::auth::kubernetes::client(of.kubeconfig.as_deref()).await {
                Ok(client) => return events(&gate.objectives, &of, client).await,
                Err(error) => tracing::warn!("InferenceObjectives: {error:#}; trying again in {RETRY:?}"),
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = followed => {}
        () = stop.cancelled() => {}
    }
}

async fn events(objectives: &Objectives, of: &ObjectiveWatch, client: kube::Client) {
    let api: Api<DynamicObject> = Api::namespaced_with(client, &of.namespace, &resource());
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut follower = Follower { objectives, pool: of.pool.as_deref(), listing: HashMap::new() };
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => follower.take(event),
            Err(error) => tracing::warn!(namespace = of.namespace, %error, "InferenceObjectives"),
        }
    }
}

/// Turns events into priorities. A listing replaces all at its end, so that nobody sees half of it.
struct Follower<'a> {
    objectives: &'a Objectives,
    pool: Option<&'a str>,
    listing: HashMap<String, i32>,
}

impl Follower<'_> {
    fn take(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                if let Some((name, priority)) = self.priority_of(&object)
                    && self.listing.len() < MAX_OBJECTIVES
                {
                    self.listing.insert(name, priority);
                }
            }
            Event::InitDone => {
                tracing::info!(count = self.listing.len(), "InferenceObjectives listed");
                self.objectives.replace(std::mem::take(&mut self.listing));
            }
            Event::Apply(object) => match self.priority_of(&object) {
                Some((name, priority)) => self.objectives.set(&name, priority),
                None => self.forget(&object),
            },
            Event::Delete(object) => self.forget(&object),
        }
    }

    fn forget(&self, object: &DynamicObject) {
        if let Some(name) = &object.metadata.name {
            self.objectives.remove(name);
        }
    }

    /// `None` if it is of another pool. No priority is priority 0; one beyond 32 bits is the nearest.
    fn priority_of(&self, object: &DynamicObject) -> Option<(String, i32)> {
        let name = object.metadata.name.clone()?;
        let pool = object.data.pointer("/spec/poolRef/name").and_then(serde_json::Value::as_str);
        if self.pool.is_some() && self.pool != pool {
            return None;
        }
        let priority = object.data.pointer("/spec/priority").and_then(serde_json::Value::as_i64).unwrap_or(0);
        Some((name, priority.clamp(i32::MIN.into(), i32::MAX.into()) as i32))
    }
}

fn resource() -> ApiResource {
    ApiResource {
        group: "inference.networking.x-k8s.io".into(),
        version: "v1alpha2".into(),
        api_version: "inference.networking.x-k8s.io/v1alpha2".into(),
        kind: "InferenceObjective".into(),
        plural: "inferenceobjectives".into(),
    }
}

const RETRY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, spec: serde_json::Value) -> DynamicObject {
        DynamicObject::new(name, &resource()).data(serde_json::json!({ "spec": spec }))
    }

    #[test]
    fn objects_come_change_and_go_and_a_listing_counts_only_when_it_is_whole() {
        let objectives = Objectives::default();
        let mut follower = Follower { objectives: &objectives, pool: None, listing: HashMap::new() };
        follower.take(Event::Init);
        follower.take(Event::InitApply(object("chat", serde_json::json!({ "priority": 10 }))));
        assert_eq!(objectives.priority("chat"), 0, "not before the end");
        follower.take(Event::InitApply(object("plain", serde_json::json!({}))));
        follower.take(Event::InitDone);
        assert_eq!((objectives.priority("chat"), objectives.priority("plain")), (10, 0));
        follower.take(Event::Apply(object("chat", serde_json::json!({ "priority": -4 }))));
        assert_eq!(objectives.priority("chat"), -4);
        follower.take(Event::Delete(object("chat", serde_json::json!({ "priority": -4 }))));
        assert_eq!(objectives.priority("chat"), 0);
        // After the watch was broken, what is no longer listed is gone.
        follower.take(Event::Apply(object("old", serde_json::json!({ "priority": 3 }))));
        follower.take(Event::Init);
        follower.take(Event::InitDone);
        assert_eq!(objectives.priority("old"), 0);
    }

    #[test]
    fn objects_of_another_pool_do_not_count_even_when_they_were_of_this_one() {
        let objectives = Objectives::default();
        let mut follower = Follower { objectives: &objectives, pool: Some("mine"), listing: HashMap::new() };
        let of = |pool: &str| object("chat", serde_json::json!({ "priority": 10, "poolRef": { "name": pool } }));
        follower.take(Event::Apply(of("mine")));
        assert_eq!(objectives.priority("chat"), 10);
        follower.take(Event::Apply(of("yours")));
        assert_eq!(objectives.priority("chat"), 0);
    }
}
