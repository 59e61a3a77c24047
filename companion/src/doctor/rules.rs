//! Missing rights as manifests.
//!
//! In: who lacks what. Out: roles and bindings in YAML, one pair for each account and namespace. Pure.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// One right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) group: &'static str,
    /// Empty for a page.
    pub(super) resource: &'static str,
    pub(super) verb: &'static str,
    /// Where; `None`: in the whole cluster.
    pub(super) namespace: Option<String>,
    page: &'static str,
}

impl Rule {
    pub(super) fn resource(
        group: &'static str,
        resource: &'static str,
        verb: &'static str,
        namespace: Option<&str>,
    ) -> Self {
        Self { group, resource, verb, namespace: namespace.map(str::to_owned), page: "" }
    }

    pub(super) const fn page(path: &'static str) -> Self {
        Self { group: "", resource: "", verb: "get", namespace: None, page: path }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.verb, self.page, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}

/// Whom a role is bound to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    ServiceAccount { namespace: String, name: String },
    User(String),
}

impl Subject {
    /// From the name that Kubernetes gives.
    pub(super) fn new(user: &str) -> Self {
        let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
        match account {
            Some((namespace, name)) => Self::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() },
            None => Self::User(user.to_owned()),
        }
    }

    /// As Kubernetes names it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::ServiceAccount { namespace, name } => format!("system:serviceaccount:{namespace}:{name}"),
            Self::User(name) => name.clone(),
        }
    }

    /// A name for its roles.
    fn role(&self) -> String {
        let plain = |text: &str| -> String {
            text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
        };
        match self {
            Self::ServiceAccount { namespace, name } => format!("tally-{namespace}-{name}"),
            Self::User(name) => format!("tally-{}", plain(name).trim_matches('-')),
        }
    }
}

/// A right that somebody lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) subject: Subject,
    pub(super) rule: Rule,
}

/// All of them, ready to apply.
pub(super) fn manifests(missing: &[Missing]) -> String {
    let mut pairs: BTreeMap<(Subject, Option<String>), Vec<&Rule>> = BTreeMap::new();
    for Missing { subject, rule } in missing {
        pairs.entry((subject.clone(), rule.namespace.clone())).or_default().push(rule);
    }
    let mut page = String::new();
    for ((subject, namespace), rules) in &pairs {
        pair(&mut page, subject, namespace.as_deref(), rules);
    }
    page
}

fn pair(page: &mut String, subject: &Subject, namespace: Option<&str>, rules: &[&Rule]) {
    let (kind, place) = match namespace {
        Some(namespace) => ("Role", format!("\n  namespace: {namespace}")),
        None => ("ClusterRole", String::new()),
    };
    let name = subject.role();
    let head = |kind: &str| {
        format!("---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}{place}\n")
    };
    let _ = writeln!(page, "{}rules:", head(kind));
    for (what, verbs) in grouped(rules) {
        let _ = writeln!(page, "- {what}\n  verbs: [{}]", verbs.join(", "));
    }
    let _ = writeln!(page, "{}roleRef:\n  apiGroup: rbac.authorization.k8s.io", head(&format!("{kind}Binding")));
    let _ = writeln!(page, "  kind: {kind}\n  name: {name}\nsubjects:");
    let _ = match subject {
        Subject::ServiceAccount { namespace, name } => {
            writeln!(page, "- kind: ServiceAccount\n  namespace: {namespace}\n  name: {name}")
        }
        Subject::User(name) => {
            writeln!(page, "- apiGroup: rbac.authorization.k8s.io\n  kind: User\n  name: {name:?}")
        }
    };
}

/// Rules on the same thing as one, in the order they came.
fn grouped(rules: &[&Rule]) -> Vec<(String, Vec<&'static str>)> {
    let mut grouped: Vec<(String, Vec<&'static str>)> = Vec::new();
    for rule in rules {
        let what = if rule.page.is_empty() {
            format!("apiGroups: [\"{}\"]\n  resources: [{}]", rule.group, rule.resource)
        } else {
            format!("nonResourceURLs: [\"{}\"]", rule.page)
        };
        match grouped.iter_mut().find(|(known, _)| *known == what) {
            Some((_, verbs)) => verbs.push(rule.verb),
            None => grouped.push((what, vec![rule.verb])),
        }
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_a_role_and_a_binding_ready_to_apply() {
        let subject = Subject::new("system:serviceaccount:monitoring:prometheus");
        let missing = |rule| Missing { subject: subject.clone(), rule };
        let said = manifests(&[
            missing(Rule::page("/metrics")),
            missing(Rule::resource("", "pods", "list", Some("models"))),
            missing(Rule::resource("", "pods", "watch", Some("models"))),
        ]);
        let expected = "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  \
            name: tally-monitoring-prometheus\nrules:\n- nonResourceURLs: [\"/metrics\"]\n  verbs: [get]\n\
            ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata:\n  \
            name: tally-monitoring-prometheus\nroleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: ClusterRole\n  \
            name: tally-monitoring-prometheus\nsubjects:\n- kind: ServiceAccount\n  namespace: monitoring\n  name: prometheus\n\
            ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata:\n  name: tally-monitoring-prometheus\n  \
            namespace: models\nrules:\n- apiGroups: [\"\"]\n  resources: [pods]\n  verbs: [list, watch]\n";
        assert!(said.starts_with(expected), "{said}");
    }

    #[test]
    fn a_right_reads_like_a_sentence() {
        assert_eq!(Rule::page("/metrics").to_string(), "get /metrics");
        let rule = Rule::resource("authentication.k8s.io", "tokenreviews", "create", None);
        assert_eq!(rule.to_string(), "create tokenreviews.authentication.k8s.io");
        assert_eq!(Rule::resource("", "pods", "list", Some("models")).to_string(), "list pods in models");
    }
}
