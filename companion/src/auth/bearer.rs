//! The token out of an `Authorization` header.

use axum::http::{HeaderMap, header};

/// The bearer token (RFC 6750 section 2.1); `None` if there is none, more than one header, or another scheme.
pub(super) fn token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    let is_token = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN_BYTES;
    // RFC 6750's b64token. Anything else would be refused by Kubernetes too, at the price of a call.
    (is_token && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))).then_some(token)
}

/// A service account's token has about 1 KB; a longer one is refused unread.
const MAX_TOKEN_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        token(&headers).map(str::to_owned)
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(read("Bearer abc.d-e_f").as_deref(), Some("abc.d-e_f"));
        assert_eq!(read("bearer abc").as_deref(), Some("abc"));
        assert_eq!(read("BEARER  abc ").as_deref(), Some("abc"));
    }

    #[test]
    fn what_is_no_bearer_token_is_none() {
        for value in ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer a b", "Bearerabc", "Bearer a,b"] {
            assert_eq!(read(value), None, "{value:?}");
        }
        assert_eq!(read(&format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1))), None);
        assert_eq!(token(&HeaderMap::new()), None);
    }

    #[test]
    fn two_headers_are_as_good_as_none() {
        let mut headers = HeaderMap::new();
        headers.append(header::AUTHORIZATION, "Bearer a".parse().unwrap());
        headers.append(header::AUTHORIZATION, "Bearer b".parse().unwrap());
        assert_eq!(token(&headers), None);
    }
}
