//! Desired against loaded: what has to be done.
//!
//! In: what the file asks for, one listing, and which source each adapter was last loaded from.
//! Out: actions, unloads first, at most one for each adapter. Pure: no clock, no memory, no network.
//! It never yields a load of what the file forbids, and never touches an adapter that the file does not name.

use std::collections::BTreeMap;

use super::config::{Adapter, Desired};
use super::engine::Listing;

/// One thing to do to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Load an adapter that is not there.
    Load(Adapter),
    /// Load it again under the same name: the source is another one.
    Replace(Adapter),
    /// Unload it.
    Unload(String),
}

impl Action {
    /// Name of the adapter.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Load(adapter) | Self::Replace(adapter) => &adapter.id,
            Self::Unload(id) => id,
        }
    }
}

/// What was loaded, as the server itself told afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Source that was sent.
    pub(super) source: String,
    /// Source that a listing showed then; servers may spell it in their own way.
    pub(super) shown: Option<String>,
}

/// What has to be done so that the server is as the file asks.
pub(super) fn diff(desired: &Desired, listing: &Listing, loaded: &BTreeMap<String, Loaded>) -> Vec<Action> {
    let forbidden = desired.forbidden.iter().filter(|id| listing.adapters.contains_key(*id));
    let unloads = forbidden.map(|id| Action::Unload(id.clone()));
    let loads =
        desired.exist.values().filter(|adapter| !listing.base_models.contains(&adapter.id)).filter_map(|adapter| {
            match listing.adapters.get(&adapter.id) {
                None => Some(Action::Load(adapter.clone())),
                Some(shown) if differs(adapter, shown.as_deref(), loaded.get(&adapter.id)) => {
                    Some(Action::Replace(adapter.clone()))
                }
                Some(_) => None,
            }
        });
    unloads.chain(loads).collect()
}

/// Is another source loaded than the one asked for?
pub(super) fn differs(adapter: &Adapter, shown: Option<&str>, loaded: Option<&Loaded>) -> bool {
    match (loaded, shown) {
        (Some(loaded), _) if loaded.source != adapter.source => true,
        // Somebody else has loaded over it since.
        (Some(Loaded { shown: Some(then), .. }), Some(now)) => then != now,
        (Some(_), _) => false,
        (None, Some(now)) => now != adapter.source,
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::config::LoraConfig;

    fn desired(text: &str) -> Desired {
        LoraConfig::parse(&format!("vLLMLoRAConfig: {text}")).unwrap().desired
    }

    fn listing(adapters: &[(&str, &str)]) -> Listing {
        let shown = |source: &str| (!source.is_empty()).then(|| source.to_owned());
        Listing {
            adapters: adapters.iter().map(|(id, source)| ((*id).to_owned(), shown(source))).collect(),
            base_models: ["base".to_owned()].into(),
        }
    }

    fn said(actions: &[Action]) -> Vec<String> {
        let name = |action: &Action| match action {
            Action::Load(adapter) => format!("load {} {}", adapter.id, adapter.source),
            Action::Replace(adapter) => format!("replace {} {}", adapter.id, adapter.source),
            Action::Unload(id) => format!("unload {id}"),
        };
        actions.iter().map(name).collect()
    }

    #[test]
    fn missing_is_loaded_forbidden_is_unloaded_first_and_the_rest_is_left_alone() {
        let desired = desired(
            "{ensureExist: {models: [{id: a, source: /a}, {id: b, source: /b}]}, ensureNotExist: {models: [{id: c}, {id: d}]}}",
        );
        let actions = diff(&desired, &listing(&[("b", "/b"), ("c", "/c"), ("stranger", "/s")]), &BTreeMap::new());
        assert_eq!(said(&actions), ["unload c", "load a /a"]);
    }

    #[test]
    fn another_source_is_replaced() {
        let desired = desired("{ensureExist: {models: [{id: a, source: /new}]}}");
        assert_eq!(said(&diff(&desired, &listing(&[("a", "/old")]), &BTreeMap::new())), ["replace a /new"]);
        let loaded = |source: &str, shown: Option<&str>| {
            BTreeMap::from([("a".to_owned(), Loaded { source: source.into(), shown: shown.map(Into::into) })])
        };
        assert_eq!(said(&diff(&desired, &listing(&[("a", "")]), &loaded("/old", None))), ["replace a /new"]);
        assert_eq!(said(&diff(&desired, &listing(&[("a", "/x")]), &loaded("/new", Some("/y")))), ["replace a /new"]);
    }

    #[test]
    fn a_server_that_spells_the_source_its_own_way_is_believed_after_one_load() {
        let desired = desired("{ensureExist: {models: [{id: a, source: org/a}]}}");
        let shown = listing(&[("a", "/cache/org--a")]);
        let loaded = Loaded { source: "org/a".into(), shown: Some("/cache/org--a".into()) };
        assert_eq!(diff(&desired, &shown, &BTreeMap::from([("a".to_owned(), loaded)])), []);
    }

    #[test]
    fn a_base_model_is_neither_loaded_over_nor_unloaded() {
        let desired = desired("{ensureExist: {models: [{id: base, source: /a}]}}");
        assert_eq!(diff(&desired, &listing(&[]), &BTreeMap::new()), []);
        let forbid = LoraConfig::parse("vLLMLoRAConfig: {ensureNotExist: {models: [{id: base}]}}").unwrap().desired;
        assert_eq!(diff(&forbid, &listing(&[]), &BTreeMap::new()), []);
    }

    #[test]
    fn what_is_on_both_sides_is_left_as_it_is() {
        let text = "{ensureExist: {models: [{id: a, source: /a}]}, ensureNotExist: {models: [{id: a}]}}";
        assert_eq!(diff(&desired(text), &listing(&[]), &BTreeMap::new()), []);
        assert_eq!(diff(&desired(text), &listing(&[("a", "/z")]), &BTreeMap::new()), []);
    }
}
