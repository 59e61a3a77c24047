//! Every call to Envoy, as a function that cannot panic in the phases where it is used.
//!
//! In: plain values. Out: plain values, or [`HostError`] with the name of the call. Nothing else in the filter calls Envoy.
//! Headers are read as bytes only: the text getters panic on a header that is not UTF-8, which one request could send.

#![expect(clippy::disallowed_methods, reason = "this is the one file that calls Envoy")]

use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, MetricType, Status};
use tally_core::timing::Nanos;

/// A call that Envoy refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostError {
    /// Which call.
    pub(crate) call: &'static str,
}

/// A method of a gRPC service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Method<'a> {
    /// Envoy's `GrpcService`, encoded.
    pub(crate) upstream: &'a str,
    /// Full name of the service.
    pub(crate) service: &'a str,
    /// Name of the method.
    pub(crate) method: &'a str,
}

/// Names a failing call.
const fn failed<E>(call: &'static str) -> impl FnOnce(E) -> HostError {
    // `E` is dropped: what Envoy's status says in words is known by the call.
    move |_| HostError { call }
}

/// Envoy's wall clock.
pub(crate) fn now() -> Nanos {
    let time = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
    let nanos = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos();
    Nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// A request header; only in `on_http_request_headers`.
pub(crate) fn request_header(name: &str) -> Vec<u8> {
    header(MapType::HttpRequestHeaders, name)
}

/// A response header; only in `on_http_response_headers`.
pub(crate) fn response_header(name: &str) -> Vec<u8> {
    header(MapType::HttpResponseHeaders, name)
}

/// Empty if it is absent, which is all that Envoy says of it.
fn header(map: MapType, name: &str) -> Vec<u8> {
    hostcalls::get_map_value_bytes(map, name).ok().flatten().unwrap_or_default()
}

/// The piece of the request's body that has just come.
pub(crate) fn request_body(size: usize) -> Result<Vec<u8>, HostError> {
    body(BufferType::HttpRequestBody, size)
}

/// The piece of the answer's body that has just come.
pub(crate) fn response_body(size: usize) -> Result<Vec<u8>, HostError> {
    body(BufferType::HttpResponseBody, size)
}

fn body(buffer: BufferType, size: usize) -> Result<Vec<u8>, HostError> {
    hostcalls::get_buffer(buffer, 0, size).ok().flatten().ok_or(HostError { call: "get_buffer" })
}

/// A number among Envoy's attributes; `None` where this stream has none.
pub(crate) fn number_property(path: &[&str]) -> Option<u64> {
    let bytes = property(path)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// An attribute of this stream; `None` where it has none.
pub(crate) fn property(path: &[&str]) -> Option<Vec<u8>> {
    hostcalls::get_property(path.to_vec()).ok().flatten()
}

/// The plugin's configuration.
pub(crate) fn configuration() -> Result<Vec<u8>, HostError> {
    let bytes = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).map_err(failed("get_buffer"))?;
    Ok(bytes.unwrap_or_default())
}

/// Calls `on_tick` this often.
pub(crate) fn tick_every(period: Duration) -> Result<(), HostError> {
    hostcalls::set_tick_period(period).map_err(failed("set_tick_period"))
}

/// Makes a stat known; every call gives a new id and leaks it, so ids are kept.
pub(crate) fn define_metric(kind: MetricType, name: &str) -> Result<u32, HostError> {
    hostcalls::define_metric(kind, name).map_err(failed("define_metric"))
}

/// Adds to a stat; Envoy refuses 0.
pub(crate) fn increment_metric(id: u32, delta: i64) -> Result<(), HostError> {
    hostcalls::increment_metric(id, delta).map_err(failed("increment_metric"))
}

/// Sets a gauge.
pub(crate) fn record_metric(id: u32, value: u64) -> Result<(), HostError> {
    hostcalls::record_metric(id, value).map_err(failed("record_metric"))
}

/// A value that all VMs share, with its version; `None` if nobody has set it.
pub(crate) fn shared(key: &str) -> Option<(Vec<u8>, u32)> {
    match hostcalls::get_shared_data(key) {
        Ok((Some(bytes), version)) => Some((bytes, version.unwrap_or(0))),
        Ok((None, _)) | Err(_) => None,
    }
}

/// Sets a value that all VMs share. `Ok(false)`: somebody else has changed it since `version`.
pub(crate) fn set_shared(key: &str, value: &[u8], version: Option<u32>) -> Result<bool, HostError> {
    match hostcalls::set_shared_data(key, Some(value), version) {
        Ok(()) => Ok(true),
        Err(Status::CasMismatch) => Ok(false),
        Err(_) => Err(HostError { call: "set_shared_data" }),
    }
}

/// Linear memory of this VM, in bytes; 0 outside a VM.
pub(crate) fn memory_bytes() -> u64 {
    #[cfg(target_arch = "wasm32")]
    return core::arch::wasm32::memory_size::<0>() as u64 * 65_536;
    #[cfg(not(target_arch = "wasm32"))]
    return 0;
}

/// Asks a gRPC service; the answer comes to the context that is being called now. The token of the call.
pub(crate) fn grpc_call(to: &Method<'_>, message: &[u8], timeout: Duration) -> Result<u32, HostError> {
    hostcalls::dispatch_grpc_call(to.upstream, to.service, to.method, Vec::new(), Some(message), timeout)
        .map_err(failed("grpc_call"))
}

/// Gives up a call or a stream; one that is over already is as well.
pub(crate) fn cancel_grpc(token: u32) {
    // The only error is that Envoy does not know it any more. The SDK keeps the number of a cancelled call for good, a few
    // bytes each.
    let _ = hostcalls::cancel_grpc_call(token);
}

/// The answer to a call; only in `on_grpc_call_response`.
pub(crate) fn grpc_answer(size: usize) -> Result<Vec<u8>, HostError> {
    // No bytes is what Envoy says of an empty message.
    Ok(hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, size).map_err(failed("get_buffer"))?.unwrap_or_default())
}

/// Opens a stream of messages to a gRPC service; only in the root's callbacks, which then hear of its end.
pub(crate) fn open_grpc_stream(to: &Method<'_>) -> Result<u32, HostError> {
    hostcalls::open_grpc_stream(to.upstream, to.service, to.method, Vec::new()).map_err(failed("grpc_stream"))
}

/// Sends a message on a stream of the root's.
pub(crate) fn send_grpc_message(token: u32, message: &[u8]) -> Result<(), HostError> {
    hostcalls::send_grpc_stream_message(token, Some(message), false).map_err(failed("grpc_send"))
}

/// From here on, in the root's callbacks, calls act on this context. False: Envoy has no such context any more.
pub(crate) fn act_on(context: u32) -> bool {
    hostcalls::set_effective_context(context).is_ok()
}

/// Lets a request go on that was paused in its head. Twice, or after an answer, would crash Envoy.
pub(crate) fn resume_request() -> Result<(), HostError> {
    hostcalls::resume_http_request().map_err(failed("continue_stream"))
}

/// Answers a request. Twice, or after it went on, would crash Envoy.
pub(crate) fn answer_request(status: u32, headers: Vec<(&str, &str)>, body: &[u8]) -> Result<(), HostError> {
    hostcalls::send_http_response(status, headers, Some(body)).map_err(failed("send_local_response"))
}
