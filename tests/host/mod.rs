//! A fake Envoy, natively: the calls that the filter imports are functions here, and the SDK's own exports are called as
//! Envoy would. What is real: the SDK, the filter, the core. What is not: wasm, threads, the network.
//!
//! The state is of the test's thread, as the SDK's is. A call that the filter has no business to make aborts the test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a part of tests, of which each uses its part"
)]

pub mod grpc;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// What the fake Envoy knows.
#[derive(Default)]
pub struct State {
    request_headers: Vec<(String, Vec<u8>)>,
    response_headers: Vec<(String, Vec<u8>)>,
    request_piece: Vec<u8>,
    response_piece: Vec<u8>,
    configuration: Vec<u8>,
    properties: BTreeMap<String, Vec<u8>>,
    shared: BTreeMap<String, (Vec<u8>, u32)>,
    versions: u32,
    names: Vec<String>,
    values: BTreeMap<String, i64>,
    histograms: BTreeMap<String, Vec<u64>>,
    now: u64,
    tick_ms: u32,
    calls: BTreeMap<&'static str, u64>,
    log: Vec<String>,
    failing: Vec<&'static str>,
    filter_state: BTreeMap<String, String>,
    grpc: grpc::Grpc,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
    /// Ids are not used again, as the SDK demands, even by a second Envoy in one test.
    static CONTEXTS: Cell<u32> = const { Cell::new(0) };
}

fn next_context() -> u32 {
    CONTEXTS.set(CONTEXTS.get() + 1);
    CONTEXTS.get()
}

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const CAS_MISMATCH: u32 = 8;
/// `MetricType::Histogram`.
const HISTOGRAM: u32 = 2;
/// `LogLevel::Critical`.
const CRITICAL: u32 = 5;

fn with<T>(run: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(run)
}

/// Counts the call; says with which status it fails, if it is to.
fn called(state: &mut State, call: &'static str) -> Option<u32> {
    *state.calls.entry(call).or_default() += 1;
    state.failing.contains(&call).then_some(NOT_FOUND)
}

unsafe fn text<'a>(data: *const u8, size: usize) -> &'a [u8] {
    // SAFETY: the SDK passes the pointer and length of a live slice.
    unsafe { std::slice::from_raw_parts(data, size) }
}

unsafe fn give(value: &[u8], data: *mut *mut u8, size: *mut usize) -> u32 {
    // SAFETY: the SDK passes pointers to locals, and takes the bytes over as a Vec of this very size.
    unsafe {
        *size = value.len();
        *data = Box::into_raw(value.to_vec().into_boxed_slice()).cast();
    }
    OK
}

#[unsafe(no_mangle)]
extern "C" fn proxy_log(level: u32, data: *const u8, size: usize) -> u32 {
    let line = String::from_utf8_lossy(unsafe { text(data, size) }).into_owned();
    if level == CRITICAL {
        // The SDK's panic hook, perhaps in the middle of a call: a failing test says so on the terminal.
        eprintln!("{line}");
    } else {
        with(|state| state.log.push(line));
    }
    OK
}

#[unsafe(no_mangle)]
extern "C" fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32 {
    with(|state| {
        called(state, "get_current_time");
        // SAFETY: a pointer to a local of the SDK.
        unsafe { *time = state.now };
    });
    OK
}

#[unsafe(no_mangle)]
extern "C" fn proxy_set_tick_period_milliseconds(period: u32) -> u32 {
    with(|state| state.tick_ms = period);
    OK
}

#[unsafe(no_mangle)]
extern "C" fn proxy_get_buffer_bytes(
    kind: u32,
    start: usize,
    most: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    with(|state| {
        if let Some(status) = called(state, "get_buffer") {
            return status;
        }
        let bytes = match kind {
            0 => &state.request_piece,
            1 => &state.response_piece,
            5 => &state.grpc.answer,
            7 => &state.configuration,
            other => panic!("buffer {other} was not expected"),
        };
        let end = start.saturating_add(most).min(bytes.len());
        unsafe { give(&bytes[start.min(end)..end], data, size) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_set_buffer_bytes(kind: u32, start: usize, length: usize, data: *const u8, size: usize) -> u32 {
    with(|state| {
        called(state, "set_buffer");
        let bytes = unsafe { text(data, size) }.to_vec();
        let buffer = match kind {
            0 => &mut state.request_piece,
            1 => &mut state.response_piece,
            other => panic!("buffer {other} was not expected"),
        };
        // Envoy replaces only all of a buffer.
        assert!(start == 0 && length >= buffer.len());
        *buffer = bytes;
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> u32 {
    with(|state| {
        called(state, "remove_header");
        let key = String::from_utf8_lossy(unsafe { text(key, key_size) }).into_owned();
        let headers = if map == 0 { &mut state.request_headers } else { &mut state.response_headers };
        headers.retain(|(name, _)| *name != key);
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_get_header_map_value(
    map: u32,
    key: *const u8,
    key_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    with(|state| {
        called(state, "get_header");
        let key = String::from_utf8_lossy(unsafe { text(key, key_size) }).into_owned();
        let headers = if map == 0 { &state.request_headers } else { &state.response_headers };
        match headers.iter().find(|(name, _)| *name == key) {
            Some((_, value)) => unsafe { give(value, data, size) },
            None => NOT_FOUND,
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32 {
    with(|state| {
        called(state, "get_property");
        let path = String::from_utf8_lossy(unsafe { text(path, path_size) }).replace('\0', ".");
        match state.properties.get(path.trim_end_matches('.')) {
            Some(value) => unsafe { give(value, data, size) },
            None => NOT_FOUND,
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_set_property(path: *const u8, path_size: usize, data: *const u8, size: usize) -> u32 {
    with(|state| {
        called(state, "set_property");
        let name = String::from_utf8_lossy(unsafe { text(path, path_size) }).into_owned();
        let value = String::from_utf8_lossy(unsafe { text(data, size) }).into_owned();
        state.filter_state.insert(name, value);
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_get_shared_data(
    key: *const u8,
    key_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
    version: *mut u32,
) -> u32 {
    with(|state| {
        called(state, "get_shared_data");
        let key = String::from_utf8_lossy(unsafe { text(key, key_size) }).into_owned();
        match state.shared.get(&key) {
            Some((value, cas)) => unsafe {
                *version = *cas;
                give(value, data, size)
            },
            None => NOT_FOUND,
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_set_shared_data(
    key: *const u8,
    key_size: usize,
    data: *const u8,
    size: usize,
    version: u32,
) -> u32 {
    with(|state| {
        called(state, "set_shared_data");
        let key = String::from_utf8_lossy(unsafe { text(key, key_size) }).into_owned();
        let value = unsafe { text(data, size) }.to_vec();
        if state.shared.get(&key).is_some_and(|(_, found)| version != 0 && *found != version) {
            return CAS_MISMATCH;
        }
        state.versions += 1;
        let version = state.versions;
        state.shared.insert(key, (value, version));
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32 {
    with(|state| {
        called(state, "define_metric");
        let name = String::from_utf8(unsafe { text(name, name_size) }.to_vec()).expect("a stat name is text");
        if kind == HISTOGRAM {
            state.histograms.entry(name.clone()).or_default();
        } else {
            state.values.entry(name.clone()).or_default();
        }
        state.names.push(name);
        // SAFETY: a pointer to a local of the SDK.
        unsafe { *id = u32::try_from(state.names.len() - 1).unwrap() };
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_increment_metric(id: u32, offset: i64) -> u32 {
    with(|state| {
        if called(state, "increment_metric").is_some() || offset == 0 {
            return BAD_ARGUMENT;
        }
        let name = state.names[id as usize].clone();
        let value = state.values.entry(name.clone()).or_default();
        *value += offset;
        assert!(*value >= 0, "{name} fell below zero, where Envoy wraps");
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_record_metric(id: u32, value: u64) -> u32 {
    with(|state| {
        let name = state.names[id as usize].clone();
        match state.histograms.get_mut(&name) {
            Some(values) => values.push(value),
            None => drop(state.values.insert(name, i64::try_from(value).unwrap())),
        }
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_replace_header_map_value(
    map: u32,
    key: *const u8,
    key_size: usize,
    value: *const u8,
    value_size: usize,
) -> u32 {
    with(|state| {
        called(state, "set_header");
        assert_eq!(map, 0, "only request headers are set");
        let key = String::from_utf8_lossy(unsafe { text(key, key_size) }).into_owned();
        let value = unsafe { text(value, value_size) }.to_vec();
        state.request_headers.retain(|(name, _)| *name != key);
        state.request_headers.push((key, value));
        OK
    })
}

macro_rules! refuse {
    ($($call:ident)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $call() -> u32 {
            eprintln!(concat!("the filter called ", stringify!($call)));
            std::process::abort()
        }
    )* };
}
refuse! {
    proxy_add_header_map_value proxy_call_foreign_function proxy_close_stream
    proxy_dequeue_shared_queue proxy_done proxy_enqueue_shared_queue proxy_get_header_map_pairs proxy_get_log_level
    proxy_get_metric proxy_get_status proxy_grpc_close proxy_http_call proxy_register_shared_queue proxy_resolve_shared_queue proxy_set_header_map_pairs
}

unsafe extern "C" {
    fn proxy_on_context_create(id: u32, root: u32);
    fn proxy_on_vm_start(id: u32, size: usize) -> bool;
    fn proxy_on_configure(id: u32, size: usize) -> bool;
    fn proxy_on_tick(id: u32);
    fn proxy_on_request_headers(id: u32, count: usize, end: bool) -> u32;
    fn proxy_on_request_body(id: u32, size: usize, end: bool) -> u32;
    fn proxy_on_response_headers(id: u32, count: usize, end: bool) -> u32;
    fn proxy_on_response_body(id: u32, size: usize, end: bool) -> u32;
    fn proxy_on_response_trailers(id: u32, count: usize) -> u32;
    fn proxy_on_log(id: u32);
    fn proxy_on_done(id: u32) -> bool;
    fn proxy_on_delete(id: u32);
}

/// `Action::Continue`.
const CONTINUE: u32 = 0;

/// A fake Envoy with one VM and one root context.
pub struct Envoy {
    root: u32,
}

impl Envoy {
    /// Starts it with this plugin configuration.
    pub fn start(configuration: &str) -> Self {
        let (envoy, is_good) = Self::try_start(configuration);
        assert!(is_good, "{:?}", envoy.log());
        envoy
    }

    /// Starts it; says whether the filter took the configuration.
    pub fn try_start(configuration: &str) -> (Self, bool) {
        with(|state| *state = State { now: 1_000_000_000_000_000_000, ..State::default() });
        // The SDK sets the process's logger and panic hook, once, without a lock.
        static STARTING: Mutex<()> = Mutex::new(());
        let starting = STARTING.lock();
        tally::start();
        drop(starting);
        let mut envoy = Self { root: 0 };
        let is_good = envoy.add_root(configuration);
        (envoy, is_good)
    }

    /// Another root context, as an update of the configuration makes one; new streams are its.
    pub fn add_root(&mut self, configuration: &str) -> bool {
        with(|state| state.configuration = configuration.as_bytes().to_vec());
        self.root = next_context();
        grpc::calling(self.root);
        // SAFETY: the SDK's exports, called in Envoy's order.
        unsafe {
            proxy_on_context_create(self.root, 0);
            proxy_on_vm_start(self.root, 0) && proxy_on_configure(self.root, configuration.len())
        }
    }

    /// The newest root context.
    pub fn root(&self) -> u32 {
        self.root
    }

    /// Time passes, then a tick comes.
    pub fn tick_after(&self, nanos: u64) {
        self.tick_root_after(self.root, nanos);
    }

    /// The same for a root context of choice.
    pub fn tick_root_after(&self, root: u32, nanos: u64) {
        self.pass(nanos);
        grpc::calling(root);
        unsafe { proxy_on_tick(root) };
    }

    /// Ticks until the filter asks for its usual period again.
    pub fn settle(&self) {
        for _ in 0..10_000 {
            self.tick_after(20_000_000);
            if with(|state| state.tick_ms) > 20 {
                return;
            }
        }
        panic!("the filter never settles");
    }

    /// Time passes.
    pub fn pass(&self, nanos: u64) {
        with(|state| state.now += nanos);
    }

    /// Somebody sets the clock back.
    pub fn set_back(&self, nanos: u64) {
        with(|state| state.now -= nanos);
    }

    /// The root context is over.
    pub fn end_root(&self, root: u32) {
        grpc::calling(root);
        unsafe { assert!(proxy_on_done(root)) };
    }

    /// A new stream.
    pub fn stream(&self) -> Stream {
        let id = next_context();
        unsafe { proxy_on_context_create(id, self.root) };
        self.created(id);
        Stream { id }
    }

    /// Calls of this kind so far.
    pub fn calls(&self, call: &str) -> u64 {
        with(|state| state.calls.get(call).copied().unwrap_or(0))
    }

    /// All calls since the last time this was asked.
    pub fn take_calls(&self) -> BTreeMap<&'static str, u64> {
        with(|state| std::mem::take(&mut state.calls))
    }

    /// From now on these calls fail.
    pub fn fail(&self, calls: &[&'static str]) {
        with(|state| state.failing = calls.to_vec());
    }

    /// What the filter has left in the filter state.
    pub fn filter_state(&self) -> BTreeMap<String, String> {
        with(|state| state.filter_state.clone())
    }

    /// Sets an attribute of the current stream.
    pub fn set_property(&self, path: &str, value: &[u8]) {
        with(|state| state.properties.insert(path.to_owned(), value.to_vec()));
    }

    /// Log lines.
    pub fn log(&self) -> Vec<String> {
        with(|state| state.log.clone())
    }

    /// The stat of this very name; 0 if it was never defined.
    pub fn stat(&self, name: &str) -> i64 {
        with(|state| state.values.get(name).copied().unwrap_or(0))
    }

    /// Values that a histogram of Envoy's was given, in their order; nothing if it was never defined.
    pub fn recorded(&self, name: &str) -> Option<Vec<u64>> {
        with(|state| state.histograms.get(name).cloned())
    }

    /// Stats whose name has this in it.
    pub fn stats_with(&self, part: &str) -> Vec<(String, i64)> {
        with(|state| {
            let found = state.values.iter().filter(|(name, _)| name.contains(part));
            found.map(|(name, value)| (name.clone(), *value)).collect()
        })
    }

    /// Sets what another VM has left in the shared data, and its stats.
    pub fn leave_behind(&self, key: &str, value: Vec<u8>, stats: &[(&str, i64)]) {
        with(|state| {
            state.versions += 1;
            let version = state.versions;
            state.shared.insert(key.to_owned(), (value, version));
            for (name, value) in stats {
                *state.values.entry((*name).to_owned()).or_default() += value;
            }
        });
    }

    /// Keys of the shared data with their values.
    pub fn shared(&self) -> Vec<(String, Vec<u8>)> {
        with(|state| state.shared.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect())
    }
}

/// A stream of the fake Envoy.
pub struct Stream {
    id: u32,
}

impl Stream {
    /// The request's head; `is_whole` if no body follows.
    pub fn request_head(&self, headers: &[(&str, &[u8])], is_whole: bool) {
        with(|state| {
            state.request_headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
            state.properties.clear();
        });
        self.in_head(|| unsafe { proxy_on_request_headers(self.id, headers.len(), is_whole) });
    }

    /// The same, for a filter that may let the head wait: whether it does.
    pub fn request_head_waits(&self, headers: &[(&str, &[u8])]) -> bool {
        with(|state| {
            state.request_headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        });
        self.in_head(|| unsafe { proxy_on_request_headers(self.id, headers.len(), false) });
        self.place() == grpc::Place::Paused
    }

    /// All of the request's body so far, as Envoy gathers it while the head waits: whether it goes on waiting.
    pub fn request_body_waits(&self, gathered: &[u8], is_last: bool) -> bool {
        with(|state| state.request_piece = gathered.to_vec());
        let waits = unsafe { proxy_on_request_body(self.id, gathered.len(), is_last) != CONTINUE };
        if !waits {
            with(|state| state.grpc.streams.insert(self.id, grpc::Place::Gone));
        }
        waits
    }

    /// A request header as it goes on.
    pub fn sent_header(&self, name: &str) -> Option<String> {
        with(|state| {
            let found = state.request_headers.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        })
    }

    /// A POST of this path.
    pub fn post(&self, path: &str) {
        self.request_head(&[(":method", b"POST"), (":path", path.as_bytes())], false);
    }

    /// A piece of the request's body.
    pub fn request_body(&self, piece: &[u8], is_last: bool) {
        with(|state| state.request_piece = piece.to_vec());
        unsafe { assert_eq!(proxy_on_request_body(self.id, piece.len(), is_last), CONTINUE) };
    }

    /// What goes on to the server of the piece that was given last.
    pub fn sent_request(&self) -> Vec<u8> {
        with(|state| state.request_piece.clone())
    }

    /// What goes on to the client of the piece that was given last.
    pub fn sent_response(&self) -> Vec<u8> {
        with(|state| state.response_piece.clone())
    }

    /// Names of the headers that go on.
    pub fn sent_headers(&self, is_request: bool) -> Vec<String> {
        with(|state| {
            let headers = if is_request { &state.request_headers } else { &state.response_headers };
            headers.iter().map(|(name, _)| name.clone()).collect()
        })
    }

    /// The answer's head.
    pub fn response_head(&self, status: &str, content_type: &str, is_whole: bool) {
        self.response_headers(&[(":status", status), ("content-type", content_type)], is_whole);
    }

    /// The answer's head with any headers.
    pub fn response_headers(&self, headers: &[(&str, &str)], is_whole: bool) {
        with(|state| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
            state.response_headers = headers.iter().map(owned).collect();
        });
        unsafe { assert_eq!(proxy_on_response_headers(self.id, headers.len(), is_whole), CONTINUE) };
    }

    /// A piece of the answer's body.
    pub fn response_body(&self, piece: &[u8], is_last: bool) {
        with(|state| state.response_piece = piece.to_vec());
        unsafe { assert_eq!(proxy_on_response_body(self.id, piece.len(), is_last), CONTINUE) };
    }

    /// The answer's trailers.
    pub fn response_trailers(&self) {
        unsafe { assert_eq!(proxy_on_response_trailers(self.id, 1), CONTINUE) };
    }

    /// The stream is over, for this reason of Envoy's.
    pub fn end_with(self, flags: u64, details: &str) {
        with(|state| {
            state.properties.insert("response.flags".to_owned(), flags.to_le_bytes().to_vec());
            state.properties.insert("response.code_details".to_owned(), details.as_bytes().to_vec());
        });
        self.end();
    }

    /// The stream is over.
    pub fn end(self) {
        self.over();
        unsafe {
            proxy_on_log(self.id);
            assert!(proxy_on_done(self.id));
            proxy_on_delete(self.id);
        }
        self.deleted();
    }

    /// Envoy deletes the stream without having logged it.
    pub fn drop_unlogged(self) {
        self.over();
        with(|state| state.properties.clear());
        unsafe { proxy_on_delete(self.id) };
        self.deleted();
    }
}

/// Logs a stream whose client has left.
fn leave(id: u32) {
    with(|state| {
        state.properties.insert("response.flags".to_owned(), 16_384_u64.to_le_bytes().to_vec());
        state.grpc.streams.insert(id, grpc::Place::Over);
    });
    unsafe { proxy_on_log(id) };
}
