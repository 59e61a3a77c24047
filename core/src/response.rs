//! An answer's body: how large it is, when its tokens came, what usage it reports.
//!
//! In: the head, then the body as it comes, in any pieces, with their times. Out: sizes, timing, usage. The bytes are
//! only looked at; what is kept does not grow with the answer.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::api::Api;
use crate::document::Document;
use crate::inflate::{self, Inflater};
use crate::json::{Found, Scanner, State, Value};
use crate::schema::{AnswerNode, AnswerSchema};
use crate::sse::{self, Piece};
use crate::timing::{Nanos, Timing};
use crate::usage::{Counts, Merge, Usage, UsageQuality};
use crate::usual::{Candidate, Usual};

/// What the filter reads of an answer's head.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseHead<'a> {
    /// HTTP status.
    pub status: u16,
    /// `content-type`, as it came.
    pub content_type: &'a [u8],
    /// `content-encoding`, as it came.
    pub content_encoding: &'a [u8],
}

impl ResponseHead<'_> {
    /// Whether the body is an event stream.
    #[must_use]
    pub fn is_event_stream(&self) -> bool {
        self.media_type().eq_ignore_ascii_case(b"text/event-stream")
    }

    /// Whether the body is, or may be, JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        let media_type = self.media_type();
        media_type.is_empty() || ends_with_ignoring_case(media_type, b"json")
    }

    /// Whether the body is not compressed.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        let encoding = self.content_encoding.trim_ascii();
        encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity")
    }

    fn media_type(&self) -> &[u8] {
        self.content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
    }
}

/// An answer being read.
pub struct Response {
    /// HTTP status; 0 before the head.
    status: u16,
    reader: Reader,
    encoding: Encoding,
    bytes: u64,
    scanned: u64,
    timing: Timing,
    findings: Findings,
}

/// How the plain bytes are read.
enum Reader {
    /// Not at all.
    Opaque,
    /// As one JSON value.
    Json(Scanner<AnswerSchema>),
    /// As an event stream with JSON in its events.
    Events(Box<Events>),
}

/// What reads an event stream.
struct Events {
    lines: sse::Reader,
    scanner: Scanner<AnswerSchema>,
    usual: Usual,
}

/// How the wire's bytes become plain ones.
enum Encoding {
    Identity,
    /// A side copy is inflated.
    Gzip(Box<Inflater>),
    /// The filter cannot read it.
    Unsupported,
}

/// What the documents said so far.
#[derive(Debug, Default)]
struct Findings {
    document: Document,
    /// Wanted top objects closed in this document: more than one is a batch.
    objects: u32,
    total: Counts,
    model: Vec<u8>,
    has_usage: bool,
    has_bad_count: bool,
    /// An earlier document was a usage report of llama.cpp: another one is of another choice.
    had_timed_usage: bool,
    /// The request had several prompts.
    several_prompts: bool,
    said_error: bool,
    /// Some document was JSON to its end.
    parsed: bool,
    /// Some document was not.
    broken: bool,
    output_events: u64,
}

impl Response {
    /// An answer of which nothing has come.
    #[must_use]
    pub fn new() -> Self {
        Self {
            status: 0,
            reader: Reader::Opaque,
            encoding: Encoding::Identity,
            bytes: 0,
            scanned: 0,
            timing: Timing::default(),
            findings: Findings::default(),
        }
    }

    /// The head came. `several_prompts`: the request asked for the completion of more than one.
    pub fn head(&mut self, head: &ResponseHead<'_>, several_prompts: bool) {
        self.status = head.status;
        self.findings.several_prompts = several_prompts;
        self.reader = if head.is_event_stream() {
            Reader::Events(Box::new(Events {
                lines: sse::Reader::new(),
                scanner: Scanner::new(),
                usual: Usual::default(),
            }))
        } else if head.is_json() {
            Reader::Json(Scanner::new())
        } else {
            Reader::Opaque
        };
        let encoding = head.content_encoding.trim_ascii();
        self.encoding = if head.is_identity() {
            Encoding::Identity
        } else if encoding.eq_ignore_ascii_case(b"gzip") || encoding.eq_ignore_ascii_case(b"x-gzip") {
            Encoding::Gzip(Box::new(Inflater::gzip()))
        } else {
            Encoding::Unsupported
        };
    }

    /// Bytes came; they need to be read only if [`Self::wants_bytes`].
    pub fn count(&mut self, bytes: u64, now: Nanos) {
        if bytes > 0 {
            self.bytes += bytes;
            self.timing.bytes(now);
        }
    }

    /// Whether the next bytes can tell anything new.
    #[must_use]
    pub fn wants_bytes(&self) -> bool {
        let readable = match &self.encoding {
            Encoding::Identity => true,
            Encoding::Gzip(inflater) => matches!(inflater.state(), inflate::State::Ok | inflate::State::Complete),
            Encoding::Unsupported => false,
        };
        readable
            && match &self.reader {
                Reader::Opaque => false,
                // What follows a whole value decides whether it was JSON, so it is looked at too, wherever the pieces end.
                Reader::Json(scanner) => scanner.state() != State::Broken,
                Reader::Events(_) => true,
            }
    }

    /// Reads the next bytes, which came at `now`.
    pub fn read(&mut self, mut bytes: &[u8], now: Nanos) {
        self.scanned += bytes.len() as u64;
        match &mut self.encoding {
            Encoding::Identity => self.findings.read(&mut self.reader, bytes),
            Encoding::Gzip(inflater) => {
                while let Some(plain) = inflater.feed(&mut bytes) {
                    self.findings.read(&mut self.reader, plain);
                }
            }
            Encoding::Unsupported => {}
        }
        if self.is_stream() {
            self.timing.output(core::mem::take(&mut self.findings.output_events), now);
        }
    }

    /// The body came to an end, proper or not.
    pub fn end(&mut self) {
        match &mut self.reader {
            Reader::Json(scanner) => self.findings.end_document(scanner),
            Reader::Events(events) => {
                if events.lines.finish() {
                    self.findings.end_document(&mut events.scanner);
                }
            }
            Reader::Opaque => {}
        }
    }

    /// HTTP status; 0 if no head came.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Whether the answer is an event stream.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        matches!(self.reader, Reader::Events(_))
    }

    /// Bytes of the body on the wire.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that were read.
    #[must_use]
    pub const fn scanned(&self) -> u64 {
        self.scanned
    }

    /// When things happened.
    #[must_use]
    pub const fn timing(&self) -> &Timing {
        &self.timing
    }

    /// The model that the server says has answered; empty if it does not say.
    #[must_use]
    pub fn model(&self) -> &[u8] {
        &self.findings.model
    }

    /// Whether the answer names an error, whatever its status.
    #[must_use]
    pub const fn said_error(&self) -> bool {
        self.findings.said_error
    }

    /// The tokens reported so far.
    #[must_use]
    pub fn usage(&self, api: Api, timings: bool) -> Usage {
        self.findings.total.usage(api, timings)
    }

    /// What the answer said of its usage. `is_good`: it came to a good end; `is_cut`: it ended before its end.
    #[must_use]
    pub fn quality(&self, api: Api, usage: &Usage, is_good: bool, is_cut: bool) -> UsageQuality {
        let nothing = usage.input.is_none() && usage.output.is_none();
        if is_cut && !nothing {
            UsageQuality::Partial
        } else if !is_good || self.status >= 300 {
            UsageQuality::NotExpected
        } else if matches!(self.encoding, Encoding::Unsupported) {
            UsageQuality::UnsupportedEncoding
        } else if nothing {
            if self.is_unreadable() {
                UsageQuality::Unparsed
            } else if self.findings.has_bad_count {
                UsageQuality::Partial
            } else {
                UsageQuality::Missing
            }
        } else if self.findings.has_bad_count || usage.input.is_none() || (api.has_output() && usage.output.is_none()) {
            UsageQuality::Partial
        } else {
            UsageQuality::Found
        }
    }

    fn is_unreadable(&self) -> bool {
        let broken_copy = match &self.encoding {
            Encoding::Gzip(inflater) => !matches!(inflater.state(), inflate::State::Ok | inflate::State::Complete),
            Encoding::Identity | Encoding::Unsupported => false,
        };
        broken_copy || (self.findings.broken && !self.findings.parsed) || matches!(self.reader, Reader::Opaque)
    }
}

impl Default for Response {
    fn default() -> Self {
        Self::new()
    }
}

impl Findings {
    fn read(&mut self, reader: &mut Reader, mut bytes: &[u8]) {
        match reader {
            Reader::Opaque => {}
            Reader::Json(scanner) => self.scan(scanner, bytes),
            Reader::Events(events) => {
                let Events { lines, scanner, usual } = &mut **events;
                while let Some(piece) = lines.next(&mut bytes) {
                    match piece {
                        Piece::Data(data) if scanner.state() == State::Empty => self.begin_event(scanner, usual, data),
                        Piece::Data(data) => self.scan(scanner, data),
                        Piece::EventEnd => self.end_document(scanner),
                        Piece::Comment => {}
                    }
                }
            }
        }
    }

    /// An event's first data: usually all of it, and usually like the event before but for its text.
    fn begin_event(&mut self, scanner: &mut Scanner<AnswerSchema>, usual: &mut Usual, data: &[u8]) {
        let Some(hit) = usual.find(data) else {
            return if usual.is_learning() { self.learn(scanner, usual, data) } else { self.scan(scanner, data) };
        };
        let said = hit.before.with_text(hit.text);
        if hit.is_over {
            // What `join` would do with a document that says nothing else.
            scanner.go_to_end();
            self.objects += 1;
            self.output_events += u64::from(said.is_output());
        } else {
            scanner.go_to(hit.mark);
            self.document = Document::of(said);
            self.scan(scanner, hit.rest);
        }
    }

    /// Scans an event's first data, to know the next one like it.
    fn learn(&mut self, scanner: &mut Scanner<AnswerSchema>, usual: &mut Usual, data: &[u8]) {
        let (mut rest, mut candidate) = (data, None::<Candidate>);
        while let Some(found) = scanner.next(&mut rest) {
            let before = self.document.plain();
            self.take(&found);
            match (found.node, &found.value) {
                (AnswerNode::Text | AnswerNode::TopDelta, Value::Text(text)) => {
                    let text_len = text.len();
                    candidate = before.zip(scanner.mark()).map(|(before, mark)| Candidate {
                        mark,
                        before,
                        text_len,
                        rest_len: rest.len(),
                        is_silent: true,
                    });
                }
                // The same model again is no news.
                (_, Value::End) | (AnswerNode::Model, Value::Text(_)) => {}
                _ => candidate.iter_mut().for_each(|candidate| candidate.is_silent = false),
            }
        }
        if let (Some(candidate), State::Complete, 1) = (candidate, scanner.state(), self.objects) {
            usual.learn(data, candidate);
        }
    }

    fn scan(&mut self, scanner: &mut Scanner<AnswerSchema>, mut data: &[u8]) {
        while let Some(found) = scanner.next(&mut data) {
            self.take(&found);
        }
    }

    fn take(&mut self, found: &Found<'_, AnswerNode>) {
        self.document.take(found, &mut self.model);
        if matches!((found.node, &found.value), (AnswerNode::Top, Value::End)) {
            self.objects += 1;
            self.join();
        }
    }

    /// What the document said so far joins the rest: each object of a batch by itself.
    fn join(&mut self) {
        let document = core::mem::take(&mut self.document);
        let timed_usage = document.has_usage && document.has_timings;
        let how = if self.objects > 1 {
            Merge::Add
        } else if timed_usage && self.had_timed_usage {
            if self.several_prompts { Merge::Add } else { Merge::AddOutput }
        } else {
            Merge::Last
        };
        self.total.merge(&document.counts, how);
        self.had_timed_usage |= timed_usage;
        self.has_usage |= document.has_usage;
        self.has_bad_count |= document.has_bad_count;
        self.said_error |= document.has_error;
        self.output_events += u64::from(document.is_output());
    }

    fn end_document(&mut self, scanner: &mut Scanner<AnswerSchema>) {
        match scanner.state() {
            State::Complete => self.parsed = true,
            State::Empty => {}
            // An event may hold something else than JSON, as OpenAI's `[DONE]` does: see `is_unreadable`.
            State::Broken | State::Open => {
                self.broken = true;
                self.join();
            }
        }
        self.objects = 0;
        scanner.reset();
    }
}

fn ends_with_ignoring_case(text: &[u8], end: &[u8]) -> bool {
    text.len() >= end.len() && text.get(text.len() - end.len()..).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}
