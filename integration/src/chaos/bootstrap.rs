//! What the Envoy of a chaos run has beyond the project's own bootstrap: routes with time-outs and retries, a hostile filter
//! behind ours, and a resource whose pressure a fault sets.

use std::path::Path;

use crate::envoy::Options;

/// The filter's configuration in ordinary times.
pub(crate) const CONFIG: &str = r#"{"admission":{"timeout_ms":50000}}"#;
/// Requests with this header have half a second.
pub(crate) const HASTY: (&str, &str) = ("x-route", "hasty");
/// Streams with this header may be silent for half a second.
pub(crate) const IDLE: (&str, &str) = ("x-route", "idle");
/// Requests with this header are tried again.
pub(crate) const RETRIED: (&str, &str) = ("x-route", "retried");

const ROUTES: &str = r#"              - name: hasty
                match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: hasty } }] }
                route: { cluster: model_server, timeout: 0.5s }
              - name: idle
                match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: idle } }] }
                route: { cluster: model_server, timeout: 0s, idle_timeout: 0.5s }
              - name: retried
                match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: retried } }] }
                route:
                  cluster: model_server
                  timeout: 0s
                  retry_policy: { retry_on: "5xx,reset", num_retries: 4, retry_back_off: { base_interval: 0.01s } }
"#;

/// The options with all that.
pub(crate) fn edited(options: Options, hostile: &Path, pressure: &Path) -> Options {
    let first_route = "              - name: model_server\n                match: { prefix: \"/\" }\n";
    let router = "          - name: envoy.filters.http.router\n";
    let filter = format!(
        "          - name: hostile
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: hostile
                failure_policy: FAIL_RELOAD
                vm_config:
                  vm_id: hostile
                  runtime: envoy.wasm.runtime.v8
                  code: {{ local: {{ filename: {} }} }}
",
        hostile.display()
    );
    let overload = format!(
        "overload_manager:
  refresh_interval: 0.05s
  resource_monitors:
  - name: envoy.resource_monitors.injected_resource
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig
      filename: {}
  actions:
  - name: envoy.overload_actions.shrink_heap
    triggers: [{{ name: envoy.resource_monitors.injected_resource, threshold: {{ value: 0.8 }} }}]
  - name: envoy.overload_actions.disable_http_keepalive
    triggers: [{{ name: envoy.resource_monitors.injected_resource, threshold: {{ value: 0.8 }} }}]
  - name: envoy.overload_actions.stop_accepting_requests
    triggers: [{{ name: envoy.resource_monitors.injected_resource, threshold: {{ value: 0.95 }} }}]

stats_config:
",
        pressure.display()
    );
    options
        .edit(first_route, &format!("{ROUTES}{first_route}"))
        .edit(router, &format!("{filter}{router}"))
        .edit("stats_config:\n", &overload)
}

/// Everything that the filter may call, and everything that Envoy may call in it.
const CAPABILITIES: &str = "proxy_log proxy_get_current_time_nanoseconds proxy_set_tick_period_milliseconds \
    proxy_get_buffer_bytes proxy_set_buffer_bytes proxy_get_header_map_value proxy_get_header_map_pairs \
    proxy_set_header_map_pairs proxy_add_header_map_value proxy_replace_header_map_value \
    proxy_remove_header_map_value proxy_get_property proxy_set_property proxy_define_metric proxy_increment_metric \
    proxy_record_metric proxy_get_metric proxy_get_shared_data proxy_set_shared_data proxy_set_effective_context \
    proxy_continue_stream proxy_close_stream proxy_send_local_response proxy_grpc_call proxy_grpc_stream \
    proxy_grpc_send proxy_grpc_cancel proxy_grpc_close proxy_get_status proxy_done proxy_call_foreign_function \
    proxy_on_vm_start proxy_on_configure proxy_on_tick proxy_on_context_create proxy_on_request_headers \
    proxy_on_request_body proxy_on_request_trailers proxy_on_response_headers proxy_on_response_body \
    proxy_on_response_trailers proxy_on_log proxy_on_done proxy_on_delete proxy_on_grpc_receive proxy_on_grpc_close \
    proxy_on_grpc_receive_initial_metadata proxy_on_grpc_receive_trailing_metadata proxy_on_http_call_response \
    proxy_on_queue_ready";

/// The filter without this one right: when it makes the call, Envoy refuses it, and the VM traps.
pub(crate) fn without_right(options: Options, right: &str) -> Options {
    let all = CAPABILITIES.split_whitespace().filter(|name| *name != right);
    let rights: Vec<String> = all.map(|name| format!("{name}: {{}}")).collect();
    let place = "                vm_config:\n                  vm_id: tally\n";
    let restriction = format!(
        "                capability_restriction_config: {{ allowed_capabilities: {{ {} }} }}\n",
        rights.join(", ")
    );
    options.edit(place, &format!("{restriction}{place}"))
}
