//! `/debug/pprof/`: profiles of this process, under the paths and parameters of Go's `net/http/pprof`.
//!
//! In: requests. Out: profiles for `go tool pprof`, text for people, an index, and 404 in words where this program has
//! nothing true to say. Taking and naming stacks is never done on the threads that answer other requests.

mod cpu;
mod heap;
mod index;
mod params;
mod profile;
mod symbols;
mod tasks;
mod threads;

use std::time::Duration;

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::sync::Semaphore;

use heap::{Samples, View};
use params::Params;
pub(crate) use tasks::spawn;

/// The routes; without profiles, one that says so.
pub(crate) fn router(is_on: bool) -> axum::Router {
    if !is_on {
        let off = || async { (StatusCode::NOT_FOUND, "profiles are switched off (--enable-pprof=false)\n") };
        return axum::Router::new().route("/debug/pprof/", get(off)).route("/debug/pprof/{name}", get(off));
    }
    axum::Router::new()
        .route("/debug/pprof", get(|| async { Redirect::permanent("/debug/pprof/") }))
        .route("/debug/pprof/", get(|| async { Html(index::page()) }))
        .route("/debug/pprof/symbol", get(|| async { "num_symbols: 1\n" }).post(symbols::answer))
        .route("/debug/pprof/{name}", get(one))
}

async fn one(Path(name): Path<String>, uri: Uri) -> Response {
    let params = match Params::parse(uri.query().unwrap_or_default()) {
        Ok(params) => params,
        Err(problem) => return (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response(),
    };
    match name.as_str() {
        "allocs" => heap(View::Allocs, params).await,
        "cmdline" => cmdline(),
        "goroutine" => match params.debug {
            0 => file("goroutine", tasks::profile()),
            level => tasks::text(level >= 2).into_response(),
        },
        "heap" => heap(View::Heap, params).await,
        "profile" => cpu(params).await,
        "threadcreate" => match params.debug {
            0 => file("threadcreate", threads::profile()),
            _ => threads::text().into_response(),
        },
        "block" | "mutex" => nothing("nothing counts how long tallyd waits for locks"),
        "trace" => nothing("tallyd has no execution trace; /debug/pprof/goroutine?debug=2 shows its tasks"),
        _ => nothing("unknown profile; /debug/pprof/ lists what there is"),
    }
}

async fn cpu(params: Params) -> Response {
    let stacks = match cpu::record(params.seconds.unwrap_or(CPU_DEFAULT), params.hz).await {
        Ok(stacks) => stacks,
        Err(fault) => {
            let status =
                if matches!(fault, cpu::Fault::Busy) { StatusCode::CONFLICT } else { StatusCode::SERVICE_UNAVAILABLE };
            return (status, format!("{fault}\n")).into_response();
        }
    };
    let is_picture = params.is_picture;
    let made = tokio::task::spawn_blocking(move || if is_picture { stacks.flame_graph() } else { stacks.profile() });
    match (made.await, is_picture) {
        (Ok(Ok(svg)), true) => ([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response(),
        (Ok(made), false) => file("profile", made),
        _ => failed("the profile could not be written"),
    }
}

async fn heap(view: View, params: Params) -> Response {
    let Ok(_turn) = HEAP_TURN.acquire().await else { return failed("stopping") };
    let mut samples = match blocking(Samples::take).await {
        Ok(samples) => samples,
        Err(fault) => return failed(&fault.to_string()),
    };
    if let Some(seconds) = params.seconds {
        tokio::time::sleep(seconds).await;
        samples = match blocking(Samples::take).await {
            Ok(later) => later.since(&samples),
            Err(fault) => return failed(&fault.to_string()),
        };
    }
    if params.debug > 0 {
        return match blocking(move || Ok(samples.text())).await {
            Ok(text) => text.into_response(),
            Err(fault) => failed(&fault.to_string()),
        };
    }
    let name = if view == View::Heap { "heap" } else { "allocs" };
    file(name, blocking(move || samples.profile(view)).await)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, heap::Fault> + Send + 'static,
) -> Result<T, heap::Fault> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(heap::Fault::Write))
}

/// The program's arguments, a NUL between them, as Go has it.
fn cmdline() -> Response {
    let arguments: Vec<String> = std::env::args().collect();
    arguments.join("\0").into_response()
}

fn file<E: std::fmt::Display>(name: &str, made: Result<Vec<u8>, E>) -> Response {
    let body = match made {
        Ok(body) => Bytes::from(body),
        Err(error) => return failed(&error.to_string()),
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

fn failed(problem: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response()
}

fn nothing(words: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("{words}\n")).into_response()
}

/// Go's.
const CPU_DEFAULT: Duration = Duration::from_secs(30);
/// A dump holds up whoever asks for memory meanwhile; further requests wait for their turn.
static HEAP_TURN: Semaphore = Semaphore::const_new(1);
