//! Carries out on Envoy's buffers and headers what `tally_core::change` says; does nothing unless it is configured.
//!
//! In: heads and pieces of bodies, in the callbacks where Envoy lets them be changed. Out: calls that change them. It
//! never pauses: what is held back of a piece goes on with a later one.

use tally_core::api::Api;
use tally_core::change::Change;
use tally_core::change::rewrite::spread;
use tally_core::config::Config;
use tally_core::exchange::Exchange;
use tally_core::response::ResponseHead;

use crate::host;
use crate::root::Shared;

/// The changes to one stream; `None`: nothing is changed.
#[derive(Default)]
pub(crate) struct Edit(Option<Change>);

impl Edit {
    /// A request's head came; no header is touched if the configuration changes nothing.
    pub(crate) fn request_head(shared: &Shared, api: Api, is_bodiless: bool) -> Self {
        let config = &shared.config;
        let draw = if config.model_rewrites.is_empty() { 0 } else { spread(host::now().0 ^ shared.next_number()) };
        let change = if is_bodiless { None } else { Change::begin(config, api, draw) };
        if change.is_some() {
            // The new length is known when the body has passed; Envoy sends chunks instead.
            shared.or_default(host::remove_request_header("content-length"));
        }
        if change.is_some() || config.drop_accept_encoding {
            shared.or_default(host::remove_request_header("accept-encoding"));
        }
        Self(change)
    }

    /// Whether the next piece of the request's body has to be read.
    pub(crate) const fn wants_request(&self) -> bool {
        self.0.is_some()
    }

    /// A piece of the request's body is in Envoy's buffer; `bytes` if it could be read.
    pub(crate) fn request_chunk(
        &mut self,
        shared: &Shared,
        exchange: &mut Exchange,
        size: usize,
        bytes: &[u8],
        is_last: bool,
    ) {
        let Some(change) = self.of(size, bytes) else { return };
        let Some(other) = change.request_chunk(&shared.config, bytes, is_last) else { return };
        shared.or_default(host::set_request_body(&other));
        if !change.target_model().is_empty() {
            exchange.rewritten(change.target_model().as_bytes());
        }
    }

    /// The answer's head came.
    pub(crate) fn response_head(&mut self, shared: &Shared, head: &ResponseHead<'_>, is_bodiless: bool) {
        if !is_bodiless && self.0.as_mut().is_some_and(|change| change.response_head(head)) {
            shared.or_default(host::remove_response_header("content-length"));
        }
    }

    /// Whether the next piece of the answer's body has to be read.
    pub(crate) fn wants_response(&self) -> bool {
        self.0.as_ref().is_some_and(Change::wants_response)
    }

    /// A piece of the answer's body is in Envoy's buffer.
    pub(crate) fn response_chunk(&mut self, shared: &Shared, size: usize, bytes: &[u8], is_last: bool) {
        let Some(change) = self.of(size, bytes) else { return };
        if let Some(other) = change.response_chunk(bytes, is_last) {
            shared.or_default(host::set_response_body(&other));
        }
    }

    /// The changes, unless a piece could not be read: from then on everything passes.
    fn of(&mut self, size: usize, bytes: &[u8]) -> Option<&mut Change> {
        if size != bytes.len() {
            self.0 = None;
        }
        self.0.as_mut()
    }
}

/// Whether the configuration changes anything of a request.
pub(crate) fn is_configured(config: &Config) -> bool {
    config.inject_usage || config.drop_accept_encoding || !config.model_rewrites.is_empty()
}
