//! What a reader asks for in `Accept` and `Accept-Encoding` (RFC 9110 section 12.5).
//!
//! In: headers. Out: one of the two formats; gzip or not. What can't be read counts as not asked for.

use axum::http::{HeaderMap, HeaderName, header};
use tally_core::exposition::Format;

/// OpenMetrics if it is asked for by name and weighs at least as much as plain text; text 0.0.4 otherwise.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let mut openmetrics = 0.0_f32;
    let mut text = 0.0_f32;
    each(headers, header::ACCEPT, |name, parameters, weight| match name {
        "application/openmetrics-text" if is_version(parameters, &["0.0.1", "1.0.0"]) => {
            openmetrics = openmetrics.max(weight);
        }
        "text/plain" if is_version(parameters, &["0.0.4"]) => text = text.max(weight),
        _ => {}
    });
    if openmetrics > 0.0 && openmetrics >= text { Format::OpenMetrics } else { Format::Text }
}

/// Does the reader take gzip?
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut gzip = None;
    let mut any = None;
    each(headers, header::ACCEPT_ENCODING, |name, _, weight| match name {
        "gzip" | "x-gzip" => gzip = Some(weight),
        "*" => any = Some(weight),
        _ => {}
    });
    gzip.or(any).is_some_and(|weight: f32| weight > 0.0)
}

/// Calls with each element's name in lower case, its parameters and its weight.
fn each(headers: &HeaderMap, name: HeaderName, mut tell: impl FnMut(&str, &str, f32)) {
    for value in headers.get_all(name).iter().filter_map(|value| value.to_str().ok()) {
        for element in value.split(',') {
            let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
            let weight = parameter(parameters, "q").map_or(Some(1.0), |q| q.parse::<f32>().ok());
            let Some(weight) = weight.filter(|weight| (0.0..=1.0).contains(weight)) else { continue };
            tell(&name.trim().to_ascii_lowercase(), parameters, weight);
        }
    }
}

fn is_version(parameters: &str, known: &[&str]) -> bool {
    parameter(parameters, "version").is_none_or(|version| known.contains(&version))
}

fn parameter<'a>(parameters: &'a str, key: &str) -> Option<&'a str> {
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case(key).then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn prometheus_gets_what_it_asks_for_first() {
        // The Accept headers of Prometheus 2.42 and of 3.x with the default scrape_protocols, as they go over the wire.
        let old = "application/openmetrics-text;version=1.0.0;q=0.75,application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let new = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                   application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                   text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for accept in [old, new] {
            assert_eq!(format(&headers(header::ACCEPT, accept)), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn text_is_for_everybody_else() {
        for accept in [
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain",
            "",
            "application/openmetrics-text;q=0",
            "text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.5",
            "application/openmetrics-text;version=2.0.0",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
        ] {
            assert_eq!(format(&headers(header::ACCEPT, accept)), Format::Text, "{accept}");
        }
        assert_eq!(format(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn gzip_is_given_only_if_it_is_asked_for() {
        for (accept, takes) in [
            ("gzip", true),
            ("gzip, deflate, br", true),
            ("GZIP;q=0.5", true),
            ("*", true),
            ("deflate;q=1.0, *;q=0.5", true),
            ("", false),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("br", false),
            ("gzip;q=x", false),
        ] {
            assert_eq!(takes_gzip(&headers(header::ACCEPT_ENCODING, accept)), takes, "{accept:?}");
        }
    }
}
