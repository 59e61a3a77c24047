//! From an InferencePool and its pods to endpoints.
//!
//! In: the objects as Kubernetes has them. Out: one endpoint for each target port of each pod that is ready and not on its
//! way out, named as the endpoint picker names it. It never asks a cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::Target;
use crate::model_server::Engine;

/// What a pool says about its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    /// As in a list request: `app=vllm,tier=gpu`.
    pub(super) selector: String,
    /// Ports of each pod, in order.
    pub(super) ports: Vec<u16>,
}

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodFacts {
    ip: Option<String>,
    is_ready: bool,
    engine: Option<Engine>,
}

impl Membership {
    /// Reads an InferencePool: `v1` (`selector.matchLabels`, `targetPorts`) or `v1alpha2` (a flat `selector`,
    /// `targetPortNumber`).
    pub(super) fn read(object: &Value) -> Result<Self, &'static str> {
        let spec = object.get("spec").ok_or("it has no spec")?;
        let selector = spec.get("selector").ok_or("it has no spec.selector")?;
        let labels = selector.get("matchLabels").filter(|labels| labels.is_object()).unwrap_or(selector);
        let labels = labels.as_object().filter(|labels| !labels.is_empty()).ok_or("spec.selector has no labels")?;
        let mut terms = Vec::new();
        for (key, value) in labels {
            terms.push(format!("{key}={}", value.as_str().ok_or("a label of spec.selector is no text")?));
        }
        let many = spec.get("targetPorts").and_then(Value::as_array);
        let numbers: Vec<&Value> = match many {
            Some(ports) => ports.iter().filter_map(|port| port.get("number")).collect(),
            None => spec.get("targetPortNumber").into_iter().collect(),
        };
        let port = |number: &Value| number.as_u64().and_then(|number| u16::try_from(number).ok());
        let ports: Vec<u16> = numbers.into_iter().filter_map(port).filter(|port| *port != 0).take(MAX_PORTS).collect();
        if ports.is_empty() {
            return Err("it has no target port");
        }
        Ok(Self { selector: terms.join(","), ports })
    }

    /// The endpoints of these pods. `metrics_port` counts for a pool with a single port only: with more, each rank has its
    /// own page on its own port.
    pub(super) fn endpoints(&self, pods: &BTreeMap<String, PodFacts>, metrics_port: Option<u16>) -> Vec<Target> {
        let mut targets = Vec::new();
        for (name, pod) in pods {
            let Some(ip) = pod.ip.as_deref().filter(|_| pod.is_ready) else { continue };
            for (rank, port) in self.ports.iter().enumerate() {
                let port = metrics_port.filter(|_| self.ports.len() == 1).unwrap_or(*port);
                let name = format!("{name}-rank-{rank}").into();
                targets.push(Target { name, host: ip.into(), port, engine: pod.engine });
            }
        }
        targets
    }
}

impl From<&Pod> for PodFacts {
    fn from(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let says_ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let engine = pod.metadata.labels.as_ref().and_then(|labels| labels.get(ENGINE_LABEL));
        Self {
            ip: status.and_then(|status| status.pod_ip.clone()).filter(|ip| !ip.is_empty()),
            is_ready: says_ready && pod.metadata.deletion_timestamp.is_none(),
            engine: engine.and_then(|name| name.parse().ok()),
        }
    }
}

const ENGINE_LABEL: &str = "inference.networking.k8s.io/engine-type";
/// As the InferencePool's own definition has it.
const MAX_PORTS: usize = 8;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ip: &str, ready: &str, more: Value) -> PodFacts {
        let mut object = json!({
            "metadata": {"name": "p"},
            "status": {"podIP": ip, "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready}]},
        });
        if let Some(more) = more.as_object() {
            object["metadata"].as_object_mut().unwrap().extend(more.clone());
        }
        PodFacts::from(&serde_json::from_value::<Pod>(object).unwrap())
    }

    fn described(membership: &Membership, pods: &[(&str, PodFacts)], port: Option<u16>) -> Vec<String> {
        let pods = pods.iter().map(|(name, pod)| (name.to_string(), pod.clone())).collect();
        let endpoints = membership.endpoints(&pods, port);
        endpoints.iter().map(|target| format!("{} {} {:?}", target.name, target.authority(), target.engine)).collect()
    }

    #[test]
    fn both_versions_of_an_inference_pool_say_who_is_in_it() {
        let v1 = json!({"spec": {"selector": {"matchLabels": {"app": "vllm", "tier": "a"}},
            "targetPorts": [{"number": 8000}, {"number": 8001}], "endpointPickerRef": {"name": "epp"}}});
        let v1alpha2 =
            json!({"spec": {"selector": {"app": "vllm"}, "targetPortNumber": 8000, "extensionRef": {"name": "epp"}}});
        let both = [Membership::read(&v1).unwrap(), Membership::read(&v1alpha2).unwrap()];
        assert_eq!(both[0], Membership { selector: "app=vllm,tier=a".into(), ports: vec![8000, 8001] });
        assert_eq!(both[1], Membership { selector: "app=vllm".into(), ports: vec![8000] });
    }

    #[test]
    fn an_inference_pool_without_selector_or_port_is_told_and_selects_nobody() {
        for object in [
            json!({}),
            json!({"spec": {"targetPorts": [{"number": 1}]}}),
            json!({"spec": {"selector": {"matchLabels": {}}, "targetPorts": [{"number": 1}]}}),
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "targetPorts": [{"number": 0}]}}),
            json!({"spec": {"selector": {"matchLabels": {"a": 1}}, "targetPorts": [{"number": 1}]}}),
        ] {
            assert!(Membership::read(&object).is_err(), "{object}");
        }
    }

    #[test]
    fn only_ready_pods_that_stay_are_endpoints_one_for_each_port() {
        let membership = Membership { selector: "app=vllm".into(), ports: vec![8000, 8001] };
        let label = json!({"labels": {"inference.networking.k8s.io/engine-type": "sglang"}});
        let pods = [
            ("ready", pod("10.0.0.1", "True", json!({}))),
            ("sglang", pod("fd00::2", "True", label)),
            ("starting", pod("10.0.0.3", "False", json!({}))),
            ("leaving", pod("10.0.0.4", "True", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}))),
            ("pending", pod("", "True", json!({}))),
        ];
        assert_eq!(
            described(&membership, &pods, Some(9000)),
            [
                "ready-rank-0 10.0.0.1:8000 None",
                "ready-rank-1 10.0.0.1:8001 None",
                "sglang-rank-0 [fd00::2]:8000 Some(Sglang)",
                "sglang-rank-1 [fd00::2]:8001 Some(Sglang)",
            ]
        );
        let single = Membership { ports: vec![8000], ..membership };
        assert_eq!(described(&single, &pods[..1], Some(9000)), ["ready-rank-0 10.0.0.1:9000 None"]);
        assert_eq!(described(&single, &pods[..1], None), ["ready-rank-0 10.0.0.1:8000 None"]);
    }
}
