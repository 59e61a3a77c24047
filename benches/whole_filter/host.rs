//! The least Envoy that the whole filter runs on, natively: a profile of it shows the filter and not its host.
//!
//! `tests/host` is the one that checks what the filter does; this one only gives what is asked, as fast as it can.

use std::cell::{Cell, RefCell};

/// What the filter may read now.
#[derive(Default)]
pub(crate) struct Now {
    /// Request and response headers.
    pub headers: [&'static [(&'static str, &'static str)]; 2],
    /// The piece of the body that has just come.
    pub piece: &'static [u8],
}

thread_local! {
    static NOW: RefCell<Now> = RefCell::default();
    static CLOCK: Cell<u64> = const { Cell::new(1_000_000_000_000_000_000) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static STATS: Cell<u32> = const { Cell::new(0) };
}

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;

/// Changes what the filter may read.
pub(crate) fn set(change: impl FnOnce(&mut Now)) {
    NOW.with_borrow_mut(change);
}

/// A microsecond goes by.
pub(crate) fn pass() {
    CLOCK.set(CLOCK.get() + 1_000);
}

/// Calls to the host so far.
pub(crate) fn calls() -> u64 {
    CALLS.get()
}

fn called() {
    CALLS.set(CALLS.get() + 1);
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
extern "C" fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32 {
    called();
    // SAFETY: a pointer to a local of the SDK.
    unsafe { *time = CLOCK.get() };
    OK
}

#[unsafe(no_mangle)]
extern "C" fn proxy_get_buffer_bytes(kind: u32, _: usize, _: usize, data: *mut *mut u8, size: *mut usize) -> u32 {
    called();
    const CONFIGURATION: u32 = 7;
    let piece = if kind == CONFIGURATION { b"{}" } else { NOW.with_borrow(|now| now.piece) };
    unsafe { give(piece, data, size) }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_get_header_map_value(
    map: u32,
    key: *const u8,
    key_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    called();
    // SAFETY: the SDK passes the pointer and length of a live slice.
    let key = unsafe { std::slice::from_raw_parts(key, key_size) };
    let headers = NOW.with_borrow(|now| now.headers[usize::from(map != 0)]);
    match headers.iter().find(|(name, _)| name.as_bytes() == key) {
        Some((_, value)) => unsafe { give(value.as_bytes(), data, size) },
        None => NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_define_metric(_: u32, _: *const u8, _: usize, id: *mut u32) -> u32 {
    called();
    STATS.set(STATS.get() + 1);
    // SAFETY: a pointer to a local of the SDK.
    unsafe { *id = STATS.get() };
    OK
}

/// Calls whose answer changes nothing here.
macro_rules! accept {
    ($($call:ident($($kind:ty),*) -> $status:ident;)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $call($(_: $kind),*) -> u32 {
            called();
            $status
        }
    )* };
}
accept! {
    proxy_log(u32, *const u8, usize) -> OK;
    proxy_set_tick_period_milliseconds(u32) -> OK;
    proxy_increment_metric(u32, i64) -> OK;
    proxy_record_metric(u32, u64) -> OK;
    proxy_get_property(*const u8, usize, *mut *mut u8, *mut usize) -> NOT_FOUND;
    proxy_get_shared_data(*const u8, usize, *mut *mut u8, *mut usize, *mut u32) -> NOT_FOUND;
    proxy_set_shared_data(*const u8, usize, *const u8, usize, u32) -> OK;
}

/// Calls that plain measuring does not make.
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
    proxy_add_header_map_value proxy_call_foreign_function proxy_close_stream proxy_continue_stream
    proxy_dequeue_shared_queue proxy_done proxy_enqueue_shared_queue proxy_get_header_map_pairs proxy_get_log_level
    proxy_get_metric proxy_get_status proxy_grpc_call proxy_grpc_cancel proxy_grpc_close proxy_grpc_send
    proxy_grpc_stream proxy_http_call proxy_register_shared_queue proxy_remove_header_map_value
    proxy_replace_header_map_value proxy_resolve_shared_queue proxy_send_local_response proxy_set_buffer_bytes
    proxy_set_effective_context proxy_set_header_map_pairs proxy_set_property
}
