//! Makes one kind of call to Envoy, so many times a request: what each costs is the difference to none.
//!
//! Configuration: `KIND TIMES`.

use std::cell::Cell;
use std::hint::black_box;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, MapType};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

#[derive(Clone, Copy, Default, PartialEq)]
enum Call {
    #[default]
    None,
    Time,
    AbsentHeader,
    Header,
    Headers,
    Attribute,
    Body,
}

thread_local! {
    static CALLS: Cell<(Call, u32)> = const { Cell::new((Call::None, 0)) };
}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let text = String::from_utf8(self.get_plugin_configuration().unwrap_or_default()).unwrap_or_default();
        let Some((kind, times)) = text.split_once(' ') else { return false };
        let kind = match kind {
            "none" => Call::None,
            "time" => Call::Time,
            "absent-header" => Call::AbsentHeader,
            "header" => Call::Header,
            "headers" => Call::Headers,
            "attribute" => Call::Attribute,
            "body" => Call::Body,
            _ => return false,
        };
        let Ok(times) = times.parse() else { return false };
        CALLS.set((kind, times));
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream;

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        const HEADERS: MapType = MapType::HttpRequestHeaders;
        let (call, times) = CALLS.get();
        for _ in 0..times {
            match call {
                Call::Time => drop(black_box(hostcalls::get_current_time())),
                Call::AbsentHeader => drop(black_box(hostcalls::get_map_value_bytes(HEADERS, "x-absent"))),
                Call::Header => drop(black_box(hostcalls::get_map_value_bytes(HEADERS, ":path"))),
                Call::Headers => drop(black_box(hostcalls::get_map_bytes(HEADERS))),
                Call::Attribute => drop(black_box(hostcalls::get_property(vec!["request", "path"]))),
                Call::None | Call::Body => {}
            }
        }
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, _: bool) -> Action {
        if let (Call::Body, times) = CALLS.get() {
            for _ in 0..times {
                drop(black_box(hostcalls::get_buffer(BufferType::HttpRequestBody, 0, size)));
            }
        }
        Action::Continue
    }
}
