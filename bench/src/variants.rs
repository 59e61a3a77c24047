//! What stands between client and model server in each variant.
//!
//! In: where the wasm modules and the external processor are. Out: a whole Envoy configuration. Buffers are the same
//! everywhere, and large enough that the variants that hold bodies back do not answer 413.

use std::path::{Path, PathBuf};

/// One way of measuring, or none.
pub(crate) struct Variant {
    /// Its name in the table.
    pub name: &'static str,
    /// What it is, for the reader of the table.
    pub what: &'static str,
    filter: String,
}

/// Where the things are that variants need.
pub(crate) struct Parts {
    /// The filter itself.
    pub tally: PathBuf,
    /// A folder with `empty.wasm` and `naive.wasm`.
    pub filters: PathBuf,
}

/// The one that all others are compared with.
pub(crate) const NONE: &str = "none";

/// All of them; the first is [`NONE`].
pub(crate) fn all(parts: &Parts) -> Vec<Variant> {
    let built = |name: &str| parts.filters.join(name);
    vec![
        Variant { name: NONE, what: "no filter", filter: String::new() },
        Variant {
            name: "empty",
            what: "a wasm filter that does nothing (same SDK)",
            filter: wasm(&built("empty.wasm")),
        },
        Variant { name: "tally", what: "Tally, default configuration", filter: wasm(&parts.tally) },
        Variant {
            name: "naive",
            what: "a wasm filter that waits for whole bodies and parses them",
            filter: wasm(&built("naive.wasm")),
        },
        Variant { name: "lua", what: "Lua: whole body, patterns; emits no metric", filter: lua() },
        Variant {
            name: "ext_proc",
            what: "ext_proc, FULL_DUPLEX_STREAMED, to a server that only says go on",
            filter: ext_proc(),
        },
    ]
}

/// Calls of the probe filter by its configuration, with what they are; the first makes none.
pub(crate) const PROBES: [(&str, &str); 7] = [
    ("none", "none"),
    ("time", "the time"),
    ("absent-header", "a header that is not there"),
    ("header", "a header"),
    ("headers", "all headers, parsed by the SDK"),
    ("attribute", "an attribute"),
    ("body", "a body of 1 KB"),
];

/// A filter that makes one kind of call, so many times a request.
pub(crate) fn probe(parts: &Parts, kind: &'static str, times: usize) -> Variant {
    let filter = configured(&parts.filters.join("probe.wasm"), &format!("{kind} {times}"));
    Variant { name: kind, what: "a probe", filter }
}

fn wasm(module: &Path) -> String {
    configured(module, "{}")
}

fn configured(module: &Path, configuration: &str) -> String {
    format!(
        r#"          - name: measured
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                failure_policy: FAIL_RELOAD
                vm_config:
                  runtime: envoy.wasm.runtime.v8
                  code: {{ local: {{ filename: {} }} }}
                configuration: {{ "@type": type.googleapis.com/google.protobuf.StringValue, value: "{configuration}" }}
"#,
        module.display()
    )
}

fn lua() -> String {
    r#"          - name: measured
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code:
                inline_string: |
                  function envoy_on_request(handle)
                    local body = handle:body()
                    if body then
                      local text = body:getBytes(0, body:length())
                      local model = string.match(text, '"model"%s*:%s*"([^"]*)"')
                    end
                  end
                  function envoy_on_response(handle)
                    local tokens
                    for chunk in handle:bodyChunks() do
                      local size = chunk:length()
                      if size > 0 then
                        local text = chunk:getBytes(0, size)
                        tokens = string.match(text, '"completion_tokens"%s*:%s*(%d+)') or tokens
                      end
                    end
                  end
"#
    .to_owned()
}

fn ext_proc() -> String {
    r#"          - name: measured
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
              grpc_service: { envoy_grpc: { cluster_name: ext_proc }, timeout: 60s }
              message_timeout: 60s
              processing_mode:
                request_header_mode: SEND
                response_header_mode: SEND
                request_body_mode: FULL_DUPLEX_STREAMED
                response_body_mode: FULL_DUPLEX_STREAMED
                request_trailer_mode: SEND
                response_trailer_mode: SEND
"#
    .to_owned()
}

impl Variant {
    /// Envoy's configuration with this filter in front of the model server at `upstream`.
    pub(crate) fn bootstrap(&self, upstream: u16, listener: u16, ext_proc: u16) -> String {
        let filter = &self.filter;
        format!(
            r#"admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
static_resources:
  listeners:
  - name: llm
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {listener} }} }}
    per_connection_buffer_limit_bytes: 33554432
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: llm
          route_config:
            virtual_hosts:
            - name: llm
              domains: ["*"]
              routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: model_server, timeout: 0s }} }}]
          http_filters:
{filter}          - name: router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: model_server
    per_connection_buffer_limit_bytes: 33554432
    load_assignment:
      cluster_name: model_server
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }} }}] }}]
  - name: ext_proc
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: ext_proc
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {ext_proc} }} }} }} }}] }}]
"#
        )
    }
}
