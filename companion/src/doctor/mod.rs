//! `tallyd doctor`: are the rights there that `auth.mode: kubernetes` and pools need?
//!
//! In: a way to the Kubernetes API, and optionally a scraper. Out: one line a question (stderr), the missing rules ready
//! for `kubectl apply -f -` (stdout), and failure if any is missing. It changes nothing.

mod rules;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
};
use kube::Client;
use kube::api::{Api, PostParams};

use crate::auth::kubernetes;
use rules::{Missing, Rule, Subject};

/// What to ask about.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Act as `tallyd` would with this [default: as a pod, else as kubectl does].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// File with the scraper's token.
    #[arg(long, value_name = "FILE", conflicts_with = "scraper")]
    scraper_token: Option<PathBuf>,
    /// The scraper's service account, if its token is not at hand.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    scraper: Option<String>,
    /// Namespace whose InferencePools and pods tallyd shall watch; may be repeated.
    #[arg(long, value_name = "NAME")]
    pool_namespace: Vec<String>,
}

/// Asks, says, and fails if a right is missing.
///
/// # Errors
/// If the API does not answer, the scraper is nobody, or a right is missing.
pub async fn run(args: Args) -> Result<()> {
    // A second installation in one process is refused, and that is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = kubernetes::client(args.kubeconfig.as_deref()).await?;
    let version = client.apiserver_version().await.context("the Kubernetes API does not answer")?;
    eprintln!("ok       the Kubernetes API answers: {}", version.git_version);
    let mut missing = Vec::new();
    let may_review = own_rights(&client, &args.pool_namespace, &mut missing).await?;
    if may_review {
        if let Some(user) = scraper(&client, &args).await? {
            scraper_rights(&client, user, &mut missing).await?;
        }
    } else if args.scraper.is_some() || args.scraper_token.is_some() {
        eprintln!("not run  the scraper's rights: tallyd may not ask for them yet; apply the rules and start again");
    }
    if missing.is_empty() {
        eprintln!("ok       nothing is missing");
        return Ok(());
    }
    print!("{}", rules::manifests(&missing));
    bail!("{} right(s) missing; the rules are above, ready for `kubectl apply -f -`", missing.len())
}

/// What tallyd itself needs. Says whether it may review others.
async fn own_rights(client: &Client, namespaces: &[String], missing: &mut Vec<Missing>) -> Result<bool> {
    let review: SelfSubjectReview = create(client, &SelfSubjectReview::default()).await.context("who tallyd is")?;
    let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
    let subject = Subject::new(user.username.as_deref().unwrap_or_default());
    eprintln!("ok       tallyd is {}", subject.name());
    let mut may_review = true;
    let reviews = [
        Rule::resource("authentication.k8s.io", "tokenreviews", "create", None),
        Rule::resource("authorization.k8s.io", "subjectaccessreviews", "create", None),
    ];
    for rule in reviews {
        let may = may_self(client, &rule).await?;
        may_review &= may;
        note("tallyd", may, &subject, rule, missing);
    }
    for namespace in namespaces {
        for (group, resource, verb) in WATCHED {
            let rule = Rule::resource(group, resource, verb, Some(namespace.as_str()));
            let may = may_self(client, &rule).await?;
            note("tallyd", may, &subject, rule, missing);
        }
    }
    Ok(may_review)
}

/// Who scrapes; none if nobody is named.
async fn scraper(client: &Client, args: &Args) -> Result<Option<UserInfo>> {
    if let Some(path) = &args.scraper_token {
        let text = std::fs::read_to_string(path).with_context(|| format!("--scraper-token {}", path.display()))?;
        let spec = TokenReviewSpec { token: Some(text.trim().to_owned()), audiences: None };
        let review: TokenReview = create(client, &TokenReview { spec, ..TokenReview::default() }).await?;
        let status = review.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            let why = status.error.unwrap_or_else(|| "expired, of another cluster, or no token".to_owned());
            bail!("the scraper's token is nobody's: {why}. tallyd answers it with 401");
        }
        return Ok(status.user);
    }
    let Some(account) = &args.scraper else { return Ok(None) };
    let Some((namespace, name)) = account.split_once('/') else {
        bail!("--scraper {account}: expected NAMESPACE/NAME");
    };
    let groups = ["system:serviceaccounts", "system:authenticated"].map(str::to_owned);
    Ok(Some(UserInfo {
        username: Some(format!("system:serviceaccount:{namespace}:{name}")),
        groups: Some(groups.into_iter().chain([format!("system:serviceaccounts:{namespace}")]).collect()),
        ..UserInfo::default()
    }))
}

async fn scraper_rights(client: &Client, user: UserInfo, missing: &mut Vec<Missing>) -> Result<()> {
    let subject = Subject::new(user.username.as_deref().unwrap_or_default());
    eprintln!("ok       the scraper is {}", subject.name());
    for (asked, rule) in PAGES {
        let spec = kubernetes::access(user.clone(), "get", asked);
        let review: SubjectAccessReview =
            create(client, &SubjectAccessReview { spec, ..SubjectAccessReview::default() }).await?;
        let may = kubernetes::is_allowed(review.status.as_ref());
        note("the scraper", may, &subject, Rule::page(rule), missing);
    }
    Ok(())
}

fn note(who: &str, may: bool, subject: &Subject, rule: Rule, missing: &mut Vec<Missing>) {
    if may {
        eprintln!("ok       {who} may {rule}");
    } else {
        eprintln!("MISSING  {who} may not {rule}");
        missing.push(Missing { subject: subject.clone(), rule });
    }
}

async fn may_self(client: &Client, rule: &Rule) -> Result<bool> {
    let spec = SelfSubjectAccessReviewSpec {
        resource_attributes: Some(ResourceAttributes {
            group: Some(rule.group.to_owned()),
            resource: Some(rule.resource.to_owned()),
            verb: Some(rule.verb.to_owned()),
            namespace: rule.namespace.clone(),
            ..ResourceAttributes::default()
        }),
        ..SelfSubjectAccessReviewSpec::default()
    };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let review: SelfSubjectAccessReview = create(client, &review).await.context("what tallyd may")?;
    Ok(kubernetes::is_allowed(review.status.as_ref()))
}

async fn create<T>(client: &Client, review: &T) -> Result<T>
where
    T: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    Ok(Api::all(client.clone()).create(&PostParams::default(), review).await?)
}

/// A path that is asked for, and the rule that allows it.
const PAGES: [(&str, &str); 2] = [("/metrics", "/metrics"), ("/debug/pprof/heap", "/debug/pprof/*")];
/// What discovery looks at.
const WATCHED: [(&str, &str, &str); 6] = [
    ("inference.networking.k8s.io", "inferencepools", "get"),
    ("inference.networking.k8s.io", "inferencepools", "list"),
    ("inference.networking.k8s.io", "inferencepools", "watch"),
    ("", "pods", "get"),
    ("", "pods", "list"),
    ("", "pods", "watch"),
];
