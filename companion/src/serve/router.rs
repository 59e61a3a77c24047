//! Which path is whose, and which are behind the guard.

use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::get;

use super::health::{self, Readiness};
use crate::auth::{self, Auth};
use crate::collect::Collect;
use crate::{metrics, page, pprof};

/// What the pages are made of.
pub(super) struct Pages {
    pub(super) auth: Arc<Auth>,
    pub(super) is_pprof_on: bool,
    pub(super) parts: Arc<[Arc<dyn Collect>]>,
    pub(super) readiness: Arc<Readiness>,
}

pub(super) fn router(pages: Pages) -> axum::Router {
    // Whatever shows anything of the traffic belongs in here.
    let guarded = axum::Router::new()
        .merge(metrics::router(pages.parts))
        .merge(pprof::router(pages.is_pprof_on))
        .route_layer(from_fn_with_state(pages.auth, auth::guard));
    axum::Router::new()
        .route("/healthz", get(health::healthy))
        .route("/readyz", get(health::ready))
        .with_state(pages.readiness)
        // The live page's files show nothing: its numbers come from /metrics, and it can ask its reader for a token.
        .merge(page::router())
        .merge(guarded)
        .fallback(nothing)
}

async fn nothing(uri: Uri) -> (StatusCode, String) {
    (
        StatusCode::NOT_FOUND,
        format!("nothing at {}; there are /, /metrics, /debug/pprof/, /healthz and /readyz\n", uri.path()),
    )
}
