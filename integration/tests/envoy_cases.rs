//! What Envoy does that a filter does not expect: each case was first seen in a real Envoy, and has its test in one.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_integration::client::Request;
use tally_integration::companion::Companion;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::expect::{Expect, exact, missing, within};
use tally_integration::model_server::{Behaviour, ModelServer};
use tally_integration::tools;

const SOON: Duration = Duration::from_secs(60);
const TOTAL: &str = "inference_objective_request_total";
const OUTCOMES: &str = "inference_objective_request_outcome_total";
const ADMISSIONS: &str = "tally_filter_admissions_total";
const FIRST_ROUTE: &str = "              - name: model_server\n                match: { prefix: \"/\" }\n";

fn chat(model: &str) -> Request {
    let usage = r#"{"usage":{"prompt_tokens":3,"completion_tokens":2}}"#.to_owned();
    let answer = Behaviour { body: Some(usage), ..Behaviour::default() };
    Request::post("/v1/chat/completions", format!(r#"{{"model":"{model}","messages":[]}}"#))
        .header("x-behave", answer.header())
}

/// Envoy runs, its VM never failed, no call to it did, and nothing is left in the gauges.
fn is_well(envoy: &mut Envoy, more: &[Expect]) -> Result<()> {
    let mut all = more.to_vec();
    for gauge in
        ["inference_objective_running_requests", "tally_filter_live_streams", "tally_filter_host_call_errors_total"]
    {
        all.push(missing(gauge, &[]));
    }
    within(SOON, || envoy.page(), &all)?;
    ensure!(envoy.alive() && envoy.vm_failures()? == 0.0, "{}", envoy.log());
    Ok(())
}

/// A server that gives this to whoever has sent something, and closes; nothing: it never answers.
fn raw_server(answer: &'static [u8]) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut sent = [0; 65_536];
                let mut size = stream.read(&mut sent).unwrap_or(0);
                if !answer.is_empty() {
                    return stream.write_all(answer);
                }
                while size > 0 {
                    size = stream.read(&mut sent).unwrap_or(0);
                }
                Ok(())
            });
        }
    });
    Ok(port)
}

/// Sends these bytes and reads to the end; what came.
fn raw_client(port: u16, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    // A reset after the answer is an end, too.
    let _ = stream.read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Section 3: bytes that break Envoy's tag expressions, values that collapse, and one that would take them 125 ms.
#[test]
fn names_of_any_length_and_bytes_become_one_whole_label_value() -> Result<()> {
    let mut envoy = Envoy::start(&Options::to(ModelServer::start()?.port))?;
    let long = "x".repeat(60_000);
    let cut = "x".repeat(200);
    for (names, label) in [
        (&["same", "same.", "same..."][..], "same"),
        (&["a;b", "a=b", "a_b", "a\\tb", "a\\rb", "a\\u007fb"], "a_b"),
        (&["y;.", "y;..."], "y_"),
        (&["le=.=9"], "le_._9"),
        (&["role=.=user"], "role_._user"),
        (&["target_model_name=.=t"], "target_model_name_._t"),
        (&[long.as_str()], cut.as_str()),
        (&["two\\r\\nlines"], "two__lines"),
    ] {
        for name in names {
            chat(name).header("x-gateway-model-name-rewrite", b"t\xff;.;le=.=1".as_slice()).send(envoy.port)?;
        }
        let of = [("model_name", label)];
        within(SOON, || envoy.page(), &[exact(TOTAL, &of, names.len() as f64)]).with_context(|| label.to_owned())?;
    }
    let page = envoy.page()?;
    let targets = page.label_values(TOTAL, "target_model_name");
    ensure!(targets == ["t\u{fffd}_._le_._1"], "{targets:?}");
    for sample in page.samples.iter().filter(|sample| sample.name.starts_with("inference_objective_")) {
        ensure!(!sample.name.contains("___"), "a label stayed in a name: {sample:?}");
        ensure!(sample.labels.contains_key("le") == sample.name.ends_with("_bucket"), "{sample:?}");
        ensure!(!sample.labels.contains_key("role"), "{sample:?}");
    }
    is_well(&mut envoy, &[])
}

/// Section 5: no upstream is ever asked, and every one of these ends in `on_log` all the same.
#[test]
fn answers_that_envoy_gives_by_itself_are_counted_once_and_leave_no_gauge_up() -> Result<()> {
    let routes = r#"              - match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: direct } }] }
                direct_response: { status: 418, body: { inline_string: "teapot" } }
              - match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: moved } }] }
                redirect: { path_redirect: "/elsewhere" }
              - match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: nowhere } }] }
                route: { cluster_header: x-cluster }
              - match: { prefix: "/", headers: [{ name: x-route, string_match: { exact: empty } }] }
                route: { cluster: empty }
"#;
    let clusters = "  clusters:\n  - { name: empty, connect_timeout: 1s, type: STATIC, load_assignment: { cluster_name: empty } }\n";
    let options = Options::to(ModelServer::start()?.port)
        .edit(FIRST_ROUTE, &format!("{routes}{FIRST_ROUTE}"))
        .edit("  clusters:\n", clusters);
    let mut envoy = Envoy::start(&options)?;
    for (route, status) in [("direct", 418), ("moved", 301), ("nowhere", 503), ("empty", 503)] {
        let answer = chat("m").header("x-route", route).header("x-cluster", "unheard-of").send(envoy.port)?;
        ensure!(answer.status == status && answer.complete, "{route}: {answer:?}");
    }
    let code = |code| [("error_code", code)];
    is_well(
        &mut envoy,
        &[
            exact(OUTCOMES, &[("outcome", "local_reply")], 3.0),
            // A redirect is no failure: it is not asked who sent it (docs/METRICS.md).
            exact(OUTCOMES, &[("outcome", "complete")], 1.0),
            exact(OUTCOMES, &[], 4.0),
            exact("inference_objective_request_error_total", &code("ServiceUnavailable"), 2.0),
            exact("inference_objective_request_error_total", &[], 3.0),
        ],
    )
}

/// Section 5: what the codec refuses makes no stream; what it refuses later ends one.
#[test]
fn what_envoys_codec_refuses_is_not_counted_and_a_body_that_it_refuses_is_counted_once() -> Result<()> {
    let mut envoy = Envoy::start(&Options::to(ModelServer::start()?.port))?;
    let huge = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nx-huge: {}\r\n\r\n", "h".repeat(100 * 1024));
    let heads: [&[u8]; 7] = [
        b"nonsense\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: many\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nbad\0name: 1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        huge.as_bytes(),
    ];
    for head in heads {
        let answer = raw_client(envoy.port, head)?;
        ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{:?}: {answer}", &head[..head.len().min(80)]);
    }
    is_well(&mut envoy, &[missing(TOTAL, &[])])?;
    let body =
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nthis is no size\r\n";
    let answer = raw_client(envoy.port, body)?;
    ensure!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    is_well(&mut envoy, &[exact(TOTAL, &[], 1.0), exact(OUTCOMES, &[], 1.0)])
}

/// Section 5: a new `vm_id` is a new set of VMs beside the old one. Both count on the same stats; Envoy frees what only the
/// old one had defined when it goes.
#[test]
fn another_vm_beside_the_old_one_counts_on_and_the_old_ones_end_takes_nothing_from_it() -> Result<()> {
    let port = tools::free_port()?;
    let arguments = ["--drain-time-s", "1"].map(str::to_owned).to_vec();
    let upstream = ModelServer::start()?.port;
    let options = Options { is_listener_dynamic: true, listener: port, arguments, ..Options::to(upstream) };
    let mut envoy = Envoy::start(&options)?;
    let send = |model: &str, number: usize| -> Result<()> {
        for _ in 0..number {
            let answer = chat(model).send(port)?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        Ok(())
    };
    send("both", 5)?;
    within(SOON, || envoy.page(), &[exact(TOTAL, &[("model_name", "both")], 5.0)])?;
    let slow = Behaviour { wait_ms: 500, bytes: 4, ..Behaviour::default() };
    let across = Request::post("/v1/chat/completions", r#"{"model":"across"}"#).header("x-behave", slow.header());
    let across = thread::spawn(move || across.send(port));
    let running = "inference_objective_running_requests";
    within(SOON, || envoy.page(), &[exact(running, &[("model_name", "across")], 1.0)])?;
    envoy.update_listener(&options.edit("vm_id: tally\n", "vm_id: other\n"))?;
    // The new VM defines the series while the old one has it: it is one.
    send("both", 7)?;
    ensure!(across.join().ok().context("a client panicked")??.status == 200, "the request in flight");
    is_well(&mut envoy, &[exact(TOTAL, &[("model_name", "both")], 12.0)])?;
    // The old listener drains, and its VMs end.
    let draining = "envoy_listener_manager_total_filter_chains_draining";
    let ended = tools::poll(SOON, || (envoy.page().ok()?.total(draining, &[]) == 0.0).then_some(()));
    ensure!(ended.is_some(), "the old filter chain is still there");
    send("both", 3)?;
    send("new", 2)?;
    is_well(&mut envoy, &[exact(TOTAL, &[("model_name", "both")], 15.0), exact(TOTAL, &[("model_name", "new")], 2.0)])
}

/// Section 5: the SDK's text getters end the VM at such a value; in an answer as in a request.
#[test]
fn an_answer_with_headers_that_are_not_utf8_ends_no_vm() -> Result<()> {
    let upstream = raw_server(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\xff\r\nx-odd: \xfe\xff\r\ncontent-encoding: \xffzip\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
    )?;
    let mut envoy = Envoy::start(&Options::to(upstream))?;
    for _ in 0..3 {
        let answer = chat("m").send(envoy.port)?;
        ensure!(answer.status == 200 && answer.body == b"{}", "{answer:?}");
    }
    is_well(&mut envoy, &[exact(OUTCOMES, &[("model_name", "m"), ("outcome", "complete")], 3.0)])
}

/// Section 6: ends without a body callback that says so.
#[test]
fn a_request_with_trailers_and_answers_without_a_body_or_with_trailers_come_to_their_ends() -> Result<()> {
    let manager = "          stat_prefix: llm\n";
    let cluster = "  - name: model_server\n    connect_timeout: 5s\n    type: STRICT_DNS\n";
    let protocol = "    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http_protocol_options: { enable_trailers: true } }
";
    let options = Options::to(ModelServer::start()?.port)
        .edit(manager, &format!("{manager}          http_protocol_options: {{ enable_trailers: true }}\n"))
        .edit(cluster, &format!("{cluster}{protocol}"));
    let mut envoy = Envoy::start(&options)?;
    let usage = r#"{"usage":{"prompt_tokens":3,"completion_tokens":2}}"#.to_owned();
    let behaviour = Behaviour { body: Some(usage), pieces_of: 9, trailers: true, ..Behaviour::default() };
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nconnection: close\r\nx-behave: {}\r\ntransfer-encoding: chunked\r\n\
         trailer: x-sent\r\n\r\n12\r\n{{\"model\":\"trailed\"\r\n1\r\n}}\r\n0\r\nx-sent: 1\r\n\r\n",
        behaviour.header()
    );
    let answer = raw_client(envoy.port, request.as_bytes())?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-took: 1"), "no trailers came: {answer}");
    for status in [204, 304] {
        // Neither has a body, whatever its head says of one.
        let bare = raw_server(if status == 204 {
            b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
        } else {
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\nconnection: close\r\n\r\n"
        })?;
        let mut other = Envoy::start(&Options::to(bare))?;
        ensure!(chat("bare").send(other.port)?.status == status, "{status}");
        is_well(&mut other, &[exact(OUTCOMES, &[("model_name", "bare"), ("outcome", "complete")], 1.0)])?;
    }
    let of = [("model_name", "trailed")];
    is_well(
        &mut envoy,
        &[
            exact(OUTCOMES, &[of[0], ("outcome", "complete")], 1.0),
            exact("inference_objective_input_tokens_sum", &of, 3.0),
            exact("inference_objective_output_tokens_sum", &of, 2.0),
        ],
    )
}

/// Section 7: the ways in which a call fails, at its start, in its answer, or never.
#[test]
fn whatever_is_wrong_with_the_companion_every_request_passes() -> Result<()> {
    const EACH: usize = 5;
    let health = tools::free_port()?;
    let _companion = Companion::start("", &["--grpc-port", "0", "--grpc-health-port", &health.to_string()])?;
    let upstream = ModelServer::start()?.port;
    let options = |companion, admission: &str| {
        Options { companion, ..Options::to(upstream) }.config(&format!(r#"{{"admission":{admission}}}"#))
    };
    let no_hosts = "  clusters:\n  - { name: empty, connect_timeout: 1s, type: STATIC, load_assignment: { cluster_name: empty } }\n";
    let breaker =
        options(raw_server(b"")?, r#"{"timeout_ms":300}"#).edit("max_requests: 1000000 }", "max_requests: 1 }");
    for (what, options) in [
        ("no host in the cluster", options(9, r#"{"cluster":"empty"}"#).edit("  clusters:\n", no_hosts)),
        ("nobody listens", options(9, "{}")),
        ("a gRPC server without this service", options(health, "{}")),
        ("a server that speaks HTTP/1 only", options(upstream, "{}")),
        ("a server that answers garbage", options(raw_server(b"\0\xff garbage \r\n\r\n")?, "{}")),
        ("a server that never answers", options(raw_server(b"")?, r#"{"timeout_ms":300}"#)),
        ("a circuit breaker that lets one call through", breaker),
    ] {
        let mut envoy = Envoy::start(&options)?;
        let port = envoy.port;
        let clients: Vec<_> = (0..EACH).map(|_| thread::spawn(move || chat("m").send(port))).collect();
        for client in clients {
            let answer = client.join().ok().context("a client panicked")??;
            ensure!(answer.status == 200 && answer.complete, "{what}: {answer:?}");
        }
        let results = exact(ADMISSIONS, &[("result", "failed_open")], EACH as f64);
        is_well(&mut envoy, &[results, exact(OUTCOMES, &[("outcome", "complete")], EACH as f64)]).context(what)?;
    }
    Ok(())
}

/// Section 7: Envoy answers a request that the filter holds; the filter's own answer afterwards would end the process.
#[test]
fn a_time_out_of_envoys_ends_a_request_that_waits_for_admission() -> Result<()> {
    let options = Options { companion: raw_server(b"")?, ..Options::to(ModelServer::start()?.port) };
    let options = options.config(r#"{"admission":{"timeout_ms":2000}}"#);
    let mut envoy = Envoy::start(&options.edit("stream_idle_timeout: 300s", "stream_idle_timeout: 1s"))?;
    let port = envoy.port;
    let clients: Vec<_> = (0..8).map(|_| thread::spawn(move || chat("m").send(port))).collect();
    for client in clients {
        let answer = client.join().ok().context("a client panicked")??;
        ensure!([408, 504].contains(&answer.status), "{answer:?}");
    }
    is_well(
        &mut envoy,
        &[exact(ADMISSIONS, &[("result", "cancelled")], 8.0), exact(OUTCOMES, &[("outcome", "timeout")], 8.0)],
    )?;
    // The deadline of the filter's own passes, and finds nobody.
    thread::sleep(Duration::from_secs(5));
    is_well(&mut envoy, &[exact(ADMISSIONS, &[], 8.0)])
}
