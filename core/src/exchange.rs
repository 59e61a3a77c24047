//! One request and its answer, from the first header to the last byte.
//!
//! In: heads and pieces of bodies in the order of the wire, each with its time, and how it ended. Out: one [`Measured`].
//! `end` consumes the exchange: nothing can be counted twice. It never talks to anybody and never holds bytes back.

use alloc::vec::Vec;

use crate::api::Api;
use crate::outcome::{End, ErrorCode, Outcome};
use crate::request::{Request, RequestQuality};
use crate::response::{Response, ResponseHead};
use crate::timing::{Gaps, Nanos};
use crate::usage::{Usage, UsageQuality};

/// What the filter reads of a request's head.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The API, by the path.
    pub api: Api,
    /// The model that a router in front has rewritten the request to; empty if none.
    pub target_model: &'a [u8],
    /// The tenant, out of the configured header; empty if none.
    pub tenant: &'a [u8],
}

/// Whose request it is and how urgent, where labels tell that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The fairness id; empty if none.
    pub fairness_id: Vec<u8>,
    /// The priority of its objective.
    pub priority: i32,
}

/// An exchange under way.
pub struct Exchange {
    api: Api,
    began: Nanos,
    target_model: Vec<u8>,
    tenant: Vec<u8>,
    flow: Flow,
    request: Request,
    response: Response,
    /// When the answer came to its proper end.
    answered: Option<Nanos>,
}

/// Everything that is known of an exchange that has ended.
#[derive(Debug)]
pub struct Measured {
    /// Its API.
    pub api: Api,
    /// The model that the request named; empty if none.
    pub model: Vec<u8>,
    /// The model that it was rewritten to; empty if it was not.
    pub target_model: Vec<u8>,
    /// The model that the answer named; empty if none.
    pub answered_model: Vec<u8>,
    /// The tenant; empty if none.
    pub tenant: Vec<u8>,
    /// Whose it is and how urgent.
    pub flow: Flow,
    /// The answer is an event stream.
    pub is_stream: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Its code if it failed.
    pub error: Option<ErrorCode>,
    /// What the request's body said.
    pub request_quality: RequestQuality,
    /// What the answer said of its usage.
    pub usage_quality: UsageQuality,
    /// Request body on the wire.
    pub request_bytes: u64,
    /// Response body on the wire.
    pub response_bytes: u64,
    /// Bytes of both bodies that were read.
    pub scanned: [u64; 2],
    /// Headers in to the end.
    pub duration: Nanos,
    /// Headers in to the first byte of a good answer's body.
    pub first_byte: Option<Nanos>,
    /// Headers in to the first output event of a good stream.
    pub first_token: Option<Nanos>,
    /// Gaps between the output events of a good stream.
    pub gaps: Gaps,
    /// Output events of a stream.
    pub output_events: u64,
    /// Tokens as far as reported.
    pub usage: Usage,
}

impl Measured {
    /// Another reader of the answer has counted its tokens: they are taken instead of those found here.
    pub fn take_usage(&mut self, usage: &Usage) {
        let Usage { audio_input, audio_output, .. } = self.usage;
        self.usage = Usage { audio_input, audio_output, ..*usage };
        if self.outcome == Outcome::Complete {
            let is_whole = usage.input.is_some() && (usage.output.is_some() || !self.api.has_output());
            self.usage_quality = if is_whole { UsageQuality::Found } else { UsageQuality::Partial };
        }
    }
}

impl Exchange {
    /// A request's head came.
    #[must_use]
    pub fn begin(head: &RequestHead<'_>, now: Nanos) -> Self {
        Self {
            api: head.api,
            began: now,
            target_model: head.target_model.to_vec(),
            tenant: head.tenant.to_vec(),
            flow: Flow::default(),
            request: Request::new(head.api),
            response: Response::new(),
            answered: None,
        }
    }

    /// Its API.
    #[must_use]
    pub const fn api(&self) -> Api {
        self.api
    }

    /// Labels tell whose it is and how urgent.
    pub fn belongs_to(&mut self, flow: Flow) {
        self.flow = flow;
    }

    /// Whose it is and how urgent.
    #[must_use]
    pub const fn flow(&self) -> &Flow {
        &self.flow
    }

    /// Whether the next piece of the request's body has to be read.
    #[must_use]
    pub const fn wants_request_chunk(&self) -> bool {
        self.request.wants_bytes()
    }

    /// A piece of `size` bytes of the request's body came; `bytes` is the piece if it was wanted.
    pub fn request_chunk(&mut self, size: u64, bytes: Option<&[u8]>) {
        self.request.count(size);
        if let Some(bytes) = bytes {
            self.request.read(bytes);
        }
    }

    /// The request came to its end.
    pub const fn request_end(&mut self) {
        self.request.end();
    }

    /// The model that the request names; empty while it is not known.
    #[must_use]
    pub fn model(&self) -> &[u8] {
        self.request.model()
    }

    /// The model that it was rewritten to; empty if it was not.
    #[must_use]
    pub fn target_model(&self) -> &[u8] {
        &self.target_model
    }

    /// The request goes on under this model's name.
    pub fn rewritten(&mut self, target_model: &[u8]) {
        self.target_model.clear();
        self.target_model.extend_from_slice(target_model);
    }

    /// The final head of the answer came.
    pub fn response_head(&mut self, head: &ResponseHead<'_>) {
        self.response.head(head, self.request.has_several_prompts());
    }

    /// Whether the next piece of the answer's body has to be read.
    #[must_use]
    pub fn wants_response_chunk(&self) -> bool {
        self.response.wants_bytes()
    }

    /// A piece of `size` bytes of the answer's body came; `bytes` is the piece if it was wanted.
    pub fn response_chunk(&mut self, size: u64, bytes: Option<&[u8]>, now: Nanos) {
        self.response.count(size, now);
        if let Some(bytes) = bytes {
            self.response.read(bytes, now);
        }
    }

    /// The answer came to its proper end; the exchange ends later, when nothing more can happen.
    pub fn response_end(&mut self, now: Nanos) {
        self.answered.get_or_insert(now);
    }

    /// Whether the answer came to its proper end, and its status is one of success.
    #[must_use]
    pub const fn went_well(&self) -> bool {
        self.answered.is_some() && self.response.status() < 400 && self.response.status() != 0
    }

    /// When the answer came to its proper end, if it did.
    #[must_use]
    pub const fn answered(&self) -> Option<Nanos> {
        self.answered
    }

    /// It is over, at `now` unless the answer ended before. `timings`: llama.cpp's own counts may stand in for usage.
    #[must_use]
    pub fn end(mut self, how: End, timings: bool, now: Nanos) -> Measured {
        self.response.end();
        let (request, response) = (&self.request, &self.response);
        let status = response.status();
        let outcome = Outcome::of(how, status, self.answered.is_some(), response.said_error());
        let is_good = outcome == Outcome::Complete;
        let is_cut = self.answered.is_none() && status != 0 && status < 400;
        let usage = response.usage(self.api, timings);
        let timing = response.timing();
        let since_begin = |at: Option<Nanos>| at.filter(|_| status < 400).map(|at| at.since(self.began));
        Measured {
            api: self.api,
            model: request.model().to_vec(),
            answered_model: response.model().to_vec(),
            outcome,
            error: outcome.error(status),
            request_quality: request.quality(),
            usage_quality: response.quality(self.api, &usage, is_good, is_cut),
            request_bytes: request.bytes(),
            response_bytes: response.bytes(),
            scanned: [request.scanned(), response.scanned()],
            duration: self.answered.unwrap_or(now).since(self.began),
            first_byte: since_begin(timing.first_byte),
            first_token: since_begin(timing.first_token),
            gaps: timing.gaps.clone(),
            output_events: timing.output_events,
            usage,
            target_model: self.target_model,
            tenant: self.tenant,
            flow: self.flow,
            is_stream: self.response.is_stream(),
        }
    }
}
