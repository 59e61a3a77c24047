//! Counters that belong to no model: the quality of bodies, and what the filter says of itself.
//!
//! In: what happened. Out: the family and labels of its counter. Every label value is one of an enum.

use crate::api::Api;
use crate::catalog::{Family, filter, objective};
use crate::request::RequestQuality;
use crate::usage::UsageQuality;

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Global {
    /// A request's body was so.
    RequestQuality(Api, RequestQuality),
    /// An answer's usage was so.
    UsageQuality(Api, UsageQuality),
    /// A request passed unmeasured.
    Ignored(Ignored),
    /// A label value was folded into `other`.
    Overflow(OverflowLabel),
    /// A flush was done.
    Flushes,
    /// It took so many nanoseconds.
    FlushNanos,
    /// Bytes of request bodies were read.
    ScannedRequest,
    /// Bytes of answers were read.
    ScannedResponse,
    /// A call to the proxy failed.
    HostCallError(&'static str),
    /// Streams of a failed VM were taken out of the gauges.
    Reaped,
    /// Admission ended so for a request.
    Admission(AdmissionResult),
}

/// What became of a request that asked for admission; each has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdmissionResult {
    /// The companion let it go.
    Dispatched,
    /// The companion refused it.
    Rejected,
    /// No decision: it passed.
    FailedOpen,
    /// No decision: the client got 503.
    FailedClosed,
    /// It ended before a decision, by the client or by Envoy.
    Cancelled,
}

impl AdmissionResult {
    /// Value of the label.
    const fn label(self) -> &'static str {
        match self {
            Self::Dispatched => "dispatched",
            Self::Rejected => "rejected",
            Self::FailedOpen => "failed_open",
            Self::FailedClosed => "failed_closed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a request passed unmeasured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// It is no POST.
    Method,
    /// Its path is not known.
    Path,
}

/// Which label had too many values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverflowLabel {
    /// `model_name` or `target_model_name`.
    ModelName,
    /// `tenant`.
    Tenant,
    /// `fairness_id`.
    FairnessId,
    /// All labels of a row of a profile.
    Profile,
}

impl Global {
    /// Its family and labels.
    pub(super) fn stat(self) -> (&'static Family, [(&'static str, &'static str); 2], usize) {
        const NONE: (&str, &str) = ("", "");
        let one = |family, key, value| (family, [(key, value), NONE], 1);
        let none = |family| (family, [NONE, NONE], 0);
        match self {
            Self::RequestQuality(api, quality) => {
                (&objective::REQUEST_QUALITY_TOTAL, [("api", api.name()), ("quality", quality.label())], 2)
            }
            Self::UsageQuality(api, quality) => {
                (&objective::USAGE_QUALITY_TOTAL, [("api", api.name()), ("quality", quality.label())], 2)
            }
            Self::Ignored(Ignored::Method) => one(&filter::REQUESTS_IGNORED_TOTAL, "reason", "method"),
            Self::Ignored(Ignored::Path) => one(&filter::REQUESTS_IGNORED_TOTAL, "reason", "path"),
            Self::Overflow(OverflowLabel::ModelName) => one(&filter::LABEL_OVERFLOW_TOTAL, "label", "model_name"),
            Self::Overflow(OverflowLabel::Tenant) => one(&filter::LABEL_OVERFLOW_TOTAL, "label", "tenant"),
            Self::Overflow(OverflowLabel::FairnessId) => one(&filter::LABEL_OVERFLOW_TOTAL, "label", "fairness_id"),
            Self::Overflow(OverflowLabel::Profile) => one(&filter::LABEL_OVERFLOW_TOTAL, "label", "profile"),
            Self::Flushes => none(&filter::FLUSHES_TOTAL),
            Self::FlushNanos => none(&filter::FLUSH_NANOSECONDS_TOTAL),
            Self::ScannedRequest => one(&filter::SCANNED_BYTES_TOTAL, "direction", "request"),
            Self::ScannedResponse => one(&filter::SCANNED_BYTES_TOTAL, "direction", "response"),
            Self::HostCallError(call) => one(&filter::HOST_CALL_ERRORS_TOTAL, "call", call),
            Self::Reaped => none(&filter::REAPED_STREAMS_TOTAL),
            Self::Admission(result) => one(&filter::ADMISSIONS_TOTAL, "result", result.label()),
        }
    }
}
