//! How a request ended, and whose fault it was.
//!
//! In: what the proxy knows at the end of a stream. Out: an [`Outcome`] and, if it failed, an [`ErrorCode`].
//! A client that leaves is never an error.

/// What the proxy knows when a stream is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The proxy's reason, if it has one.
    pub cause: Cause,
    /// The answer was the proxy's own, not the model server's.
    pub local_reply: bool,
    /// Admission refused the request.
    pub rejected: bool,
}

/// Why a stream ended before its proper end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// The client left.
    ClientLeft,
    /// No reason is known.
    #[default]
    None,
    /// Some time-out of the proxy.
    Timeout,
    /// The model server could not be reached or broke off.
    Upstream,
}

impl Cause {
    /// The cause in Envoy's response flags (`CoreResponseFlag`, one bit each in the order of the enum).
    #[must_use]
    pub const fn of_envoy_flags(flags: u64) -> Self {
        const CLIENT_LEFT: u64 = 1 << 14 | 1 << 18 | 1 << 28;
        const TIMEOUT: u64 = 1 << 2 | 1 << 16 | 1 << 19 | 1 << 22;
        const UPSTREAM: u64 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 15 | 1 << 23;
        if flags & CLIENT_LEFT != 0 {
            Self::ClientLeft
        } else if flags & TIMEOUT != 0 {
            Self::Timeout
        } else if flags & UPSTREAM != 0 {
            Self::Upstream
        } else {
            Self::None
        }
    }
}

/// Value of the `outcome` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Came to its proper end with a good status.
    Complete,
    /// The client left before the end.
    ClientCancelled,
    /// The model server broke off, or could not be reached.
    UpstreamReset,
    /// The model server answered that it failed, by status or inside its stream.
    UpstreamError,
    /// A time-out of the proxy.
    Timeout,
    /// Admission refused it.
    Rejected,
    /// The proxy answered by itself or ended the stream for reasons of its own.
    LocalReply,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Complete,
        Self::ClientCancelled,
        Self::UpstreamReset,
        Self::UpstreamError,
        Self::Timeout,
        Self::Rejected,
        Self::LocalReply,
    ];

    /// Value of the label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientCancelled => "client_cancelled",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::Rejected => "rejected",
            Self::LocalReply => "local_reply",
        }
    }

    /// The outcome of a stream. `status` is 0 if no response head came; `whole` says that the response came to its proper
    /// end; `said_error` that it named an error inside a good answer.
    #[must_use]
    pub const fn of(end: End, status: u16, whole: bool, said_error: bool) -> Self {
        let failed = status >= 400;
        if end.rejected {
            return Self::Rejected;
        }
        match end.cause {
            // A client may close as soon as it has read the last byte: that is no cancel.
            Cause::ClientLeft if !whole => return Self::ClientCancelled,
            Cause::Timeout => return Self::Timeout,
            Cause::Upstream if !whole || end.local_reply => return Self::UpstreamReset,
            _ => {}
        }
        if end.local_reply || !whole {
            Self::LocalReply
        } else if failed || said_error {
            Self::UpstreamError
        } else {
            Self::Complete
        }
    }

    /// The code that counts as an error; `None` for what is no error. Codes are EPP's.
    #[must_use]
    pub const fn error(self, status: u16) -> Option<ErrorCode> {
        match self {
            Self::Complete | Self::ClientCancelled => None,
            Self::UpstreamReset | Self::UpstreamError | Self::Timeout => Some(ErrorCode::ModelServerError),
            Self::Rejected | Self::LocalReply => match status {
                // A redirect or another answer of a route is the proxy's work, and no failure.
                100..=399 => None,
                400 => Some(ErrorCode::BadRequest),
                401 => Some(ErrorCode::Unauthorized),
                403 => Some(ErrorCode::Forbidden),
                404 => Some(ErrorCode::NotFound),
                429 => Some(ErrorCode::ResourceExhausted),
                503 | 504 => Some(ErrorCode::ServiceUnavailable),
                0 => Some(ErrorCode::Unknown),
                _ => Some(ErrorCode::Internal),
            },
        }
    }
}

/// Value of the `error_code` label: EPP's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The proxy refused the request as malformed.
    BadRequest,
    /// The proxy forbade it.
    Forbidden,
    /// The proxy failed otherwise.
    Internal,
    /// The model server failed: by status, in its stream, by breaking off, by silence.
    ModelServerError,
    /// No route.
    NotFound,
    /// Too many requests.
    ResourceExhausted,
    /// No healthy endpoint, or too many connections.
    ServiceUnavailable,
    /// The proxy refused for want of credentials.
    Unauthorized,
    /// The stream ended without an answer and without a reason.
    Unknown,
}

impl ErrorCode {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::BadRequest,
        Self::Forbidden,
        Self::Internal,
        Self::ModelServerError,
        Self::NotFound,
        Self::ResourceExhausted,
        Self::ServiceUnavailable,
        Self::Unauthorized,
        Self::Unknown,
    ];

    /// Value of the label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Forbidden => "Forbidden",
            Self::Internal => "Internal",
            Self::ModelServerError => "ModelServerError",
            Self::NotFound => "NotFound",
            Self::ResourceExhausted => "ResourceExhausted",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Unauthorized => "Unauthorized",
            Self::Unknown => "Unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(cause: Cause, local_reply: bool) -> End {
        End { cause, local_reply, rejected: false }
    }

    #[test]
    fn a_client_that_leaves_is_no_error_and_one_that_leaves_after_the_last_byte_did_not_leave() {
        let left = end(Cause::ClientLeft, false);
        assert_eq!(Outcome::of(left, 200, false, false), Outcome::ClientCancelled);
        assert_eq!(Outcome::of(left, 0, false, false), Outcome::ClientCancelled);
        assert_eq!(Outcome::ClientCancelled.error(0), None);
        assert_eq!(Outcome::of(left, 200, true, false), Outcome::Complete);
        assert_eq!(Outcome::of(left, 500, true, false), Outcome::UpstreamError);
    }

    /// Flags as measured with Envoy 1.40: 16384 client gone, 4 route time-out, 64 upstream closed, 32800 connection refused
    /// after retries, 8388608 protocol error, 2 no healthy upstream, 16777216 no cluster.
    #[test]
    fn flags_of_envoy_name_the_cause() {
        for (flags, cause) in [
            (16_384, Cause::ClientLeft),
            (4, Cause::Timeout),
            (64, Cause::Upstream),
            (32_800, Cause::Upstream),
            (8_388_608, Cause::Upstream),
            (2, Cause::None),
            (16_777_216, Cause::None),
            (0, Cause::None),
        ] {
            assert_eq!(Cause::of_envoy_flags(flags), cause, "{flags}");
        }
    }

    #[test]
    fn whose_fault_it_was_decides_the_code() {
        let cases = [
            (end(Cause::None, false), 200, true, false, Outcome::Complete, None),
            (end(Cause::None, false), 404, true, false, Outcome::UpstreamError, Some(ErrorCode::ModelServerError)),
            (end(Cause::None, false), 200, true, true, Outcome::UpstreamError, Some(ErrorCode::ModelServerError)),
            (end(Cause::Upstream, true), 503, true, false, Outcome::UpstreamReset, Some(ErrorCode::ModelServerError)),
            (end(Cause::Upstream, false), 200, false, false, Outcome::UpstreamReset, Some(ErrorCode::ModelServerError)),
            (end(Cause::Timeout, true), 504, true, false, Outcome::Timeout, Some(ErrorCode::ModelServerError)),
            (end(Cause::None, true), 503, true, false, Outcome::LocalReply, Some(ErrorCode::ServiceUnavailable)),
            (end(Cause::None, true), 404, true, false, Outcome::LocalReply, Some(ErrorCode::NotFound)),
            (end(Cause::None, true), 301, true, false, Outcome::LocalReply, None),
            (end(Cause::None, false), 0, false, false, Outcome::LocalReply, Some(ErrorCode::Unknown)),
        ];
        for (end, status, whole, said_error, outcome, code) in cases {
            let found = Outcome::of(end, status, whole, said_error);
            assert_eq!((found, found.error(status)), (outcome, code), "{end:?} {status}");
        }
        let rejected = End { rejected: true, ..End::default() };
        assert_eq!(Outcome::of(rejected, 429, true, false).error(429), Some(ErrorCode::ResourceExhausted));
    }
}
