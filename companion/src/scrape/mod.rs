//! Asks endpoints for their metrics pages, again and again.
//!
//! In: a target and how to ask. Out: samples and failures, told to an [`Observer`]. One task for each endpoint, one
//! question at a time; dropping the task closes its connection. It never keeps a page.

mod body;
mod link;
mod pace;
mod tls;
mod token;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::discovery::Target;
use crate::model_server::{Mapping, PageError, Read};

use link::{Ask, Link};
use pace::Pace;
pub use tls::{TlsError, TlsPlan};
pub use token::Token;

/// How to ask the endpoints of a pool.
#[derive(Clone, Debug)]
pub struct ScrapePlan {
    /// From the begin of one question to the begin of the next.
    pub interval: Duration,
    /// For one question, connecting included.
    pub timeout: Duration,
    /// A page of more bytes, as sent or decompressed, is refused.
    pub max_body: usize,
    /// Path of the page.
    pub path: String,
    /// Ask for a compressed page. A compressed answer is read in any case.
    pub gzip: bool,
    /// TLS; none is plain HTTP.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Bearer token.
    pub token: Option<Arc<Token>>,
}

/// Why a scrape gave no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No connection, or it was refused.
    Connect,
    /// The page lacks the series of the engine.
    MissingFamily,
    /// What was read is no HTTP or no metrics page.
    Parse,
    /// The answer was not 200.
    Status,
    /// No whole answer in time.
    Timeout,
    /// More than `max_body`.
    TooLarge,
    /// The connection or the page ended too early.
    Truncated,
}

impl Reason {
    /// All of them, in the order of their labels.
    pub const ALL: [Self; 7] =
        [Self::Connect, Self::MissingFamily, Self::Parse, Self::Status, Self::Timeout, Self::TooLarge, Self::Truncated];

    /// Value of the label `reason`.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::MissingFamily => "missing_family",
            Self::Parse => "parse",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Truncated => "truncated",
        }
    }
}

impl From<PageError> for Reason {
    fn from(error: PageError) -> Self {
        match error {
            PageError::MissingFamily => Self::MissingFamily,
            PageError::Parse => Self::Parse,
            PageError::Truncated => Self::Truncated,
        }
    }
}

/// Who wants to know.
pub trait Observer: Send + Sync + 'static {
    /// A scrape has ended.
    fn scraped(&self, result: Result<Read, Reason>, at: Instant);
}

/// Scrapes one endpoint for as long as it is polled.
pub async fn run(target: Target, plan: Arc<ScrapePlan>, mapping: Arc<Mapping>, observer: impl Observer) {
    let ask = Ask::new(&target, &plan);
    let mut link = None;
    let mut pace = Pace::new(plan.interval);
    tokio::time::sleep(pace.first()).await;
    loop {
        let began = Instant::now();
        let scrape = one(&mut link, &ask, &plan, &mapping);
        let result = tokio::time::timeout(plan.timeout, scrape).await.unwrap_or(Err(Reason::Timeout));
        if result.is_err() {
            // What is left of a failed answer must not be taken for the next one.
            link = None;
        }
        let is_good = result.is_ok();
        observer.scraped(result, Instant::now());
        tokio::time::sleep(pace.rest(is_good, began.elapsed())).await;
    }
}

/// One question, over the kept connection if there is one.
async fn one(link: &mut Option<Link>, ask: &Ask, plan: &ScrapePlan, mapping: &Mapping) -> Result<Read, Reason> {
    if let Some(kept) = link {
        match kept.get(ask).await {
            Ok(response) => return body::read(kept, response, plan.max_body, mapping).await,
            // The server closed it meanwhile, which is its right: ask once more over a new one.
            Err(_) => *link = None,
        }
    }
    let fresh = link.insert(Link::connect(ask, plan).await?);
    let response = fresh.get(ask).await?;
    body::read(fresh, response, plan.max_body, mapping).await
}
