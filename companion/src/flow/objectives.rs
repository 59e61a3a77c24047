//! Priorities by InferenceObjective name: those of the configuration, and those of the cluster above them.
//!
//! In: names with priorities. Out: the priority of a name; an unknown name has 0, as in EPP.
//! It never talks to Kubernetes: `objective_watch.rs` does.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// See the file's head.
#[derive(Debug, Default)]
pub struct Objectives {
    configured: HashMap<String, i32>,
    cluster: RwLock<HashMap<String, i32>>,
}

impl Objectives {
    /// Those of the configuration.
    #[must_use]
    pub fn new(configured: HashMap<String, i32>) -> Self {
        Self { configured, cluster: RwLock::default() }
    }

    /// Priority of an objective.
    #[must_use]
    pub fn priority(&self, name: &str) -> i32 {
        if name.is_empty() {
            return 0;
        }
        let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
        cluster.get(name).or_else(|| self.configured.get(name)).copied().unwrap_or(0)
    }

    /// An object of the cluster is there or has changed. Names beyond [`MAX_OBJECTIVES`] are not kept.
    pub fn set(&self, name: &str, priority: i32) {
        let mut cluster = self.cluster.write().unwrap_or_else(PoisonError::into_inner);
        if cluster.len() < MAX_OBJECTIVES || cluster.contains_key(name) {
            cluster.insert(name.to_owned(), priority);
        }
    }

    /// An object of the cluster is gone.
    pub fn remove(&self, name: &str) {
        self.cluster.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The cluster's objects are exactly these.
    pub fn replace(&self, all: HashMap<String, i32>) {
        *self.cluster.write().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

/// Objects of the cluster that are kept.
pub const MAX_OBJECTIVES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_wins_over_the_file_and_an_unknown_name_is_priority_zero() {
        let objectives = Objectives::new(HashMap::from([("chat".to_owned(), 5), ("batch".to_owned(), -1)]));
        objectives.set("chat", 7);
        assert_eq!((objectives.priority("chat"), objectives.priority("batch"), objectives.priority("x")), (7, -1, 0));
        objectives.remove("chat");
        assert_eq!(objectives.priority("chat"), 5);
        objectives.replace(HashMap::from([("x".to_owned(), 3)]));
        assert_eq!((objectives.priority("x"), objectives.priority("")), (3, 0));
    }
}
