//! Who may read the pages.
//!
//! In: a request's method, path and `Authorization` header. Out: leave to go on, or a [`Refusal`] as EPP's users expect
//! it: 401 for no or a bad token, 403 with the user's name, 503 if nobody can tell. It never logs a token.

mod bearer;
mod cache;
pub(crate) mod kubernetes;
mod token_file;

use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;

use crate::config;
use kubernetes::Kubernetes;
use token_file::TokenFile;

/// One way to decide.
#[derive(Debug)]
pub(crate) enum Auth {
    /// Those that Kubernetes allows.
    Kubernetes(Box<Kubernetes>),
    /// Everybody may.
    None,
    /// Those with a token of the file.
    TokenFile(TokenFile),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Known, but not allowed.
    Forbidden {
        /// Who it is.
        user: String,
    },
    /// No token, or not one that counts.
    Unauthenticated,
    /// It can't be found out now.
    Unavailable,
}

impl Auth {
    /// As configured; a mode that reads files or asks a server starts doing so.
    pub(crate) async fn start(config: &config::Auth, shutdown: CancellationToken) -> anyhow::Result<Self> {
        Ok(match config {
            config::Auth::Kubernetes { kubeconfig, audiences, times } => {
                let client = kubernetes::client(kubeconfig.as_deref()).await.context("auth.mode: kubernetes")?;
                Self::Kubernetes(Box::new(Kubernetes::new(client, audiences.clone(), *times)))
            }
            config::Auth::None => Self::None,
            config::Auth::TokenFile(path) => Self::TokenFile(TokenFile::start(path.clone(), shutdown).await?),
        })
    }

    async fn check(&self, headers: &HeaderMap, verb: &str, path: &str) -> Result<(), Refusal> {
        if let Self::None = self {
            return Ok(());
        }
        let token = bearer::token(headers).ok_or(Refusal::Unauthenticated)?;
        match self {
            Self::Kubernetes(kubernetes) => kubernetes.check(token, verb, path).await,
            Self::TokenFile(tokens) if !tokens.holds(token) => Err(Refusal::Unauthenticated),
            Self::None | Self::TokenFile(_) => Ok(()),
        }
    }
}

/// In front of every page that is not for everybody.
pub(crate) async fn guard(State(auth): State<Arc<Auth>>, request: Request, next: Next) -> Response {
    let verb = request.method().as_str().to_ascii_lowercase();
    match auth.check(request.headers(), &verb, request.uri().path()).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            tracing::debug!(?refusal, path = request.uri().path(), "refused");
            refusal.into_response()
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Forbidden { user } => {
                (StatusCode::FORBIDDEN, format!("Authorization denied for user {user}\n")).into_response()
            }
            Self::Unauthenticated => {
                let ask = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
                (StatusCode::UNAUTHORIZED, ask, "Unauthorized\n").into_response()
            }
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "Authorization cannot be checked at the moment\n").into_response()
            }
        }
    }
}
