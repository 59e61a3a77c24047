//! The live page: its files, built into the program.
//!
//! In: nothing but the path. Out: a router for `/` and `/assets/`. Never: a number. The page fetches `/metrics` beside
//! it, with the reader's own rights; these files hold no secret and no data.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Only what is served here may run, be drawn or be asked.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// Path, content type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("../page/index.html")),
    ("/assets/app.js", SCRIPT, include_str!("../page/app.js")),
    ("/assets/charts.js", SCRIPT, include_str!("../page/charts.js")),
    ("/assets/format.js", SCRIPT, include_str!("../page/format.js")),
    ("/assets/history.js", SCRIPT, include_str!("../page/history.js")),
    ("/assets/metrics.js", SCRIPT, include_str!("../page/metrics.js")),
    ("/assets/tables.js", SCRIPT, include_str!("../page/tables.js")),
    ("/assets/style.css", STYLE, include_str!("../page/style.css")),
    ("/assets/icon.svg", PICTURE, include_str!("../page/icon.svg")),
    ("/assets/uplot.js", SCRIPT, include_str!("../page/vendor/uplot.js")),
    ("/assets/uplot.css", STYLE, include_str!("../page/vendor/uplot.css")),
];

/// The page at `/` and its files under `/assets/`; GET and HEAD.
pub fn router() -> Router {
    FILES.iter().fold(Router::new(), |router, &(path, kind, content)| {
        router.route(path, get(move || async move { file(kind, content) }))
    })
}

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        // A new tallyd brings new files.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    async fn ask(path: &str) -> (StatusCode, String, String) {
        let answer = router().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let policy = answer.headers().get(header::CONTENT_SECURITY_POLICY);
        let policy = policy.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, policy, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_file_that_the_page_names_is_served_and_from_here_only() {
        for (path, kind, content) in FILES {
            let (status, policy, body) = ask(path).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            assert!(policy.starts_with("default-src 'none'"), "{path}");
            assert_eq!(body, *content);
            for quote in ["src=\"", "href=\"", "from \""] {
                for rest in body.split(quote).skip(1).filter(|_| *kind != PICTURE && !path.contains("uplot")) {
                    let named = rest.split('"').next().unwrap();
                    let place = match named.strip_prefix("./") {
                        Some(module) => format!("/assets/{module}"),
                        None => format!("/{named}"),
                    };
                    let known =
                        named.starts_with('#') || named == "metrics" || FILES.iter().any(|file| file.0 == place);
                    assert!(known, "{path} names {named}");
                }
            }
        }
    }

    #[tokio::test]
    async fn nothing_else_is_served() {
        assert_eq!(ask("/assets/../Cargo.toml").await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask("/assets/").await.0, StatusCode::NOT_FOUND);
    }
}
