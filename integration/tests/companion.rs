//! `tallyd serve` as a process: start, pages, configuration, stop.

// Helpers of a test may stop it too; clippy only knows the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use tally_integration::admin::{Admin, Says};
use tally_integration::client::Request;
use tally_integration::companion::Companion;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::expect::{exact, missing, within};
use tally_integration::model_server::{Behaviour, ModelServer};
use tally_integration::tools::{self, poll};

const SOON: Duration = Duration::from_secs(10);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn without_configuration_it_serves_this_machine_only() {
    let companion = Companion::start("", &[]).unwrap();
    for path in ["/healthz", "/readyz"] {
        let answer = companion.get(path, None).unwrap();
        assert_eq!((answer.status, text(&answer.body).as_str()), (200, "ok\n"), "{path}");
    }
    let page = companion.page().unwrap();
    let info: Vec<_> = page.matching("inference_extension_info", &[]).collect();
    assert_eq!(info.len(), 1);
    assert_eq!(info[0].value, 1.0);
    let commit = &info[0].labels["commit"];
    assert!(commit == "unknown" || commit.len() == 40, "{commit}");
    assert_eq!(page.types["inference_extension_info"], "gauge");
    assert!(companion.log().contains("address=127.0.0.1:"), "{}", companion.log());
    let elsewhere = companion.get("/debug/nothing", None).unwrap();
    assert_eq!(elsewhere.status, 404);
    assert!(text(&elsewhere.body).contains("nothing at /debug/nothing"));
}

#[test]
fn a_wrong_configuration_is_named_with_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.yaml");
    std::fs::write(&file, "auth:\n  mode: none\nenvoy:\n- url: here\n").unwrap();
    for arguments in [vec!["config", "check"], vec!["serve", "--config"]] {
        let output = Command::new(tools::tallyd().unwrap()).args(arguments).arg(&file).output().unwrap();
        assert!(!output.status.success());
        let said = text(&output.stderr);
        assert!(said.contains("wrong.yaml: line 4, column 8: envoy[0].url: expected an address"), "{said}");
    }
    std::fs::write(&file, "envoy:\n- url: http://127.0.0.1:9901\n").unwrap();
    let output = Command::new(tools::tallyd().unwrap()).args(["config", "check"]).arg(&file).output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "ok: http://127.0.0.1:9090, auth none, 1 Envoy(s), 0 pool(s), flow control off\n");
}

#[test]
fn no_auth_on_an_open_address_does_not_start_unless_forced() {
    let refused = Companion::start("", &["--listen", "0.0.0.0:0"]).unwrap_err().to_string();
    assert!(refused.contains("can be reached from other machines"), "{refused}");
    let forced = Companion::start("", &["--listen", "0.0.0.0:0", "--insecure-no-auth"]).unwrap();
    assert_eq!(forced.page().unwrap().total("inference_extension_info", &[]), 1.0);
}

#[test]
fn a_token_of_the_file_opens_the_page_and_a_changed_file_counts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, "first\nsecond\n").unwrap();
    let companion =
        Companion::start(&format!("auth: {{mode: token-file, token_file: {}}}\n", file.display()), &[]).unwrap();
    let status = |token| companion.get("/metrics", token).unwrap().status;
    assert_eq!([status(Some("first")), status(Some("second"))], [200, 200]);
    assert_eq!([status(None), status(Some("third")), status(Some("firs"))], [401, 401, 401]);
    let answer = companion.get("/metrics", None).unwrap();
    assert_eq!(text(&answer.body), "Unauthorized\n");
    assert!(answer.headers.contains(&("www-authenticate".to_owned(), "Bearer".to_owned())), "{:?}", answer.headers);
    assert_eq!(companion.get("/healthz", None).unwrap().status, 200);
    std::fs::write(&file, "third\n").unwrap();
    assert!(poll(SOON, || (status(Some("third")) == 200 && status(Some("first")) == 401).then_some(())).is_some());
    std::fs::remove_file(&file).unwrap();
    assert!(poll(SOON, || (status(Some("third")) == 401).then_some(())).is_some());
    assert!(!companion.log().contains("third"), "a token is in the log");
}

#[test]
fn the_page_comes_in_the_format_and_encoding_asked_for() {
    let companion = Companion::start("", &[]).unwrap();
    let ask = |accept: &str, encoding: &str| {
        let request = Request::bare("GET", "/metrics").header("accept", accept).header("accept-encoding", encoding);
        let answer = request.header("connection", "close").send(companion.port).unwrap();
        let header = |name: &str| answer.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        (header("content-type").unwrap(), header("content-encoding"), answer.body)
    };
    let (kind, encoding, plain) = ask("*/*", "identity");
    assert_eq!((kind.as_str(), encoding), ("text/plain; version=0.0.4; charset=utf-8", None));
    assert!(text(&plain).starts_with("# HELP inference_extension_info [ALPHA] "));
    let (kind, _, open) = ask("application/openmetrics-text;version=1.0.0", "identity");
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text(&open).ends_with("# EOF\n"));
    let (_, encoding, zipped) = ask("*/*", "gzip");
    assert_eq!(encoding.as_deref(), Some("gzip"));
    let mut gunzip = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    gunzip.stdin.take().unwrap().write_all(&zipped).unwrap();
    assert_eq!(gunzip.wait_with_output().unwrap().stdout, plain);
}

#[test]
fn a_term_signal_turns_readiness_off_finishes_answers_and_ends_with_success() {
    let mut companion = Companion::start("listen: {linger: 2s, drain: 5s}\n", &[]).unwrap();
    let pid = companion.pid().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    assert!(poll(SOON, || (companion.get("/readyz", None).ok()?.status == 503).then_some(())).is_some());
    assert_eq!(companion.get("/metrics", None).unwrap().status, 200, "still answers while it lingers");
    let status = poll(SOON, || companion.process().0.try_wait().unwrap()).expect("it should have ended");
    assert!(status.success(), "{status}");
}

#[test]
fn a_peer_that_never_finishes_does_not_hold_up_the_stop_beyond_the_deadline() {
    let mut companion = Companion::start("listen: {drain: 1s}\n", &[]).unwrap();
    let mut peer = TcpStream::connect(("127.0.0.1", companion.port)).unwrap();
    peer.write_all(b"GET /metrics HTTP/1.1\r\nhost:").unwrap();
    assert!(companion.process().stop(SOON), "it should have ended");
    peer.set_read_timeout(Some(SOON)).unwrap();
    let mut rest = Vec::new();
    // Cut or closed: either way the peer hears of it.
    let _ = peer.read_to_end(&mut rest);
}

/// Two families as an Envoy with the filter writes them; the filter's counters in Envoy's order, without HELP.
fn stats(requests: u64, running: u64) -> String {
    let labels = "model_name=\"m\",target_model_name=\"t\"";
    let mut page = "# TYPE inference_objective_request_total counter\n".to_owned();
    page.push_str(&format!("inference_objective_request_total{{{labels}}} {requests}\n"));
    page.push_str(&format!("# TYPE inference_objective_running_requests gauge\ninference_objective_running_requests{{model_name=\"m\"}} {running}\n"));
    page.push_str("# TYPE inference_objective_normalized_time_per_output_token_seconds_bucket counter\n");
    for le in ["+Inf", "0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "10", "2", "5"] {
        let count = if ["0.001", "0.002"].contains(&le) { 0 } else { requests };
        page.push_str(&format!(
            "inference_objective_normalized_time_per_output_token_seconds_bucket{{{labels},le=\"{le}\"}} {count}\n"
        ));
    }
    for part in ["count", "sum"] {
        let name = format!("inference_objective_normalized_time_per_output_token_seconds_{part}");
        page.push_str(&format!("# TYPE {name} counter\n{name}{{{labels}}} {requests}\n"));
    }
    page
}

const REQUESTS: &str = "inference_objective_request_total";

#[test]
fn the_families_of_two_envoys_are_one_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let (first, port) = Admin::tcp(Says::Page(stats(10, 3))).unwrap();
    let _second = Admin::unix(&socket, Says::Page(stats(5, 1))).unwrap();
    let config = format!(
        "envoy:\n- {{url: 'http://127.0.0.1:{port}', interval: 100ms, name: one}}\n- {{unix: {}, interval: 100ms}}\n",
        socket.display()
    );
    let companion = Companion::start(&config, &[]).unwrap();
    within(
        SOON,
        || companion.page(),
        &[
            exact(REQUESTS, &[("model_name", "m"), ("target_model_name", "t")], 15.0),
            exact("inference_objective_running_requests", &[("model_name", "m")], 4.0),
            exact("inference_objective_normalized_time_per_output_token_seconds_bucket", &[("le", "0.002")], 0.0),
            exact("inference_objective_normalized_time_per_output_token_seconds_bucket", &[("le", "0.005")], 15.0),
            exact("inference_objective_normalized_time_per_output_token_seconds_sum", &[], 15.0),
            exact("tally_envoy_up", &[], 2.0),
        ],
    )
    .unwrap();
    let page = companion.page().unwrap();
    assert_eq!(page.types["inference_objective_normalized_time_per_output_token_seconds"], "histogram");
    assert_eq!(page.types[REQUESTS], "counter");
    assert!(
        first.asked().iter().all(|line| line == "GET /stats/prometheus?filter=%5Ewasmcustom%5C. HTTP/1.1"),
        "{:?}",
        first.asked()
    );
}

fn ask_for(model: &str, tokens: usize) -> Request {
    let usage = format!(
        r#"{{"model":"{model}","usage":{{"prompt_tokens":5,"completion_tokens":{tokens},"total_tokens":{}}}}}"#,
        tokens + 5
    );
    let behaviour = Behaviour { body: Some(usage), ..Behaviour::default() };
    let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
    Request::post("/v1/chat/completions", body).header("x-behave", behaviour.header())
}

#[test]
fn two_real_envoys_are_one_page_that_promtool_has_nothing_against() {
    let server = ModelServer::start().unwrap();
    let envoys = [Envoy::start(&Options::to(server.port)).unwrap(), Envoy::start(&Options::to(server.port)).unwrap()];
    let admins: Vec<_> =
        envoys.iter().map(|envoy| format!("- {{url: '127.0.0.1:{}', interval: 200ms}}\n", envoy.admin)).collect();
    let companion = Companion::start(&format!("envoy:\n{}", admins.concat()), &[]).unwrap();
    // Output tokens by hand, on bounds and between them: 1 | 8 | 16 | 32 … 4096 | 8192.
    let sent = [(0, 1), (0, 8), (0, 9), (1, 20), (1, 8192), (1, 9000)];
    for (envoy, tokens) in sent {
        assert_eq!(ask_for("m", tokens).send(envoys[envoy].port).unwrap().status, 200);
    }
    let bucket =
        |le, count| exact("inference_objective_output_tokens_bucket", &[("model_name", "m"), ("le", le)], count);
    let page = within(
        SOON,
        || companion.page(),
        &[
            exact(REQUESTS, &[("model_name", "m")], 6.0),
            exact("inference_objective_output_tokens_count", &[("model_name", "m")], 6.0),
            exact("inference_objective_output_tokens_sum", &[("model_name", "m")], 17_230.0),
            bucket("1", 1.0),
            bucket("8", 2.0),
            bucket("16", 3.0),
            bucket("32", 4.0),
            bucket("4096", 4.0),
            bucket("8192", 5.0),
            bucket("+Inf", 6.0),
            missing("inference_objective_running_requests", &[]),
            exact("tally_envoy_up", &[], 2.0),
        ],
    )
    .unwrap();
    // What each Envoy says by itself, added up by another reader, is what the page says: every counter of a bucket, too.
    let own: Vec<_> = envoys.iter().map(|envoy| envoy.page().unwrap()).collect();
    for name in ["request_total", "request_duration_seconds_bucket", "request_sizes_sum", "response_sizes_bucket"] {
        let name = format!("inference_objective_{name}");
        assert_eq!(page.sum(&name, &[]), Some(own.iter().map(|page| page.total(&name, &[])).sum()), "{name}");
    }
    assert_eq!(page.types["inference_objective_output_tokens"], "histogram");
    promtool(&companion.get("/metrics", None).unwrap().body);
}

fn promtool(page: &[u8]) {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else { return println!("not run: promtool is not installed (make setup)") };
    promtool.stdin.take().unwrap().write_all(page).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let remarks = text(&output.stderr);
    // One counter is in nanoseconds on purpose: counters of Envoy are whole numbers.
    let mut others = remarks.lines().filter(|line| !line.contains("tally_filter_flush_nanoseconds_total"));
    assert_eq!(others.next(), None, "{remarks}");
}

#[test]
fn an_envoy_that_fails_costs_neither_the_last_good_counts_nor_a_slow_page() {
    let (admin, port) = Admin::tcp(Says::Page(stats(10, 3))).unwrap();
    let config = format!("envoy: [{{url: 'http://127.0.0.1:{port}', interval: 100ms, timeout: 2s}}]\n");
    let companion = Companion::start(&config, &[]).unwrap();
    let up = |value| [exact("tally_envoy_up", &[], value), exact(REQUESTS, &[], 10.0)];
    within(SOON, || companion.page(), &up(1.0)).unwrap();
    for says in [Says::Nothing, Says::Status(503), Says::Half(stats(20, 3))] {
        admin.say(says);
        within(SOON, || companion.page(), &up(0.0)).unwrap();
        let began = std::time::Instant::now();
        let page = companion.page().unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "the page waited for a peer");
        assert!(page.sum("tally_envoy_age_seconds", &[]).is_some());
        admin.say(Says::Page(stats(10, 3)));
        within(SOON, || companion.page(), &up(1.0)).unwrap();
    }
    admin.say(Says::Page(String::new()));
    let running = "inference_objective_running_requests";
    within(SOON, || companion.page(), &[missing(running, &[]), exact(REQUESTS, &[], 10.0)]).unwrap();
    admin.say(Says::Page(stats(4, 1)));
    within(SOON, || companion.page(), &[exact(running, &[], 1.0), exact(REQUESTS, &[], 14.0)]).unwrap();
}

#[test]
fn an_envoy_that_was_never_there_is_down_and_the_page_is_whole() {
    let port = tools::free_port().unwrap();
    let companion = Companion::start(&format!("envoy: [{{url: '127.0.0.1:{port}', interval: 100ms}}]\n"), &[]).unwrap();
    within(
        SOON,
        || companion.page(),
        &[exact("tally_envoy_up", &[], 0.0), exact("inference_extension_info", &[], 1.0)],
    )
    .unwrap();
    assert!(poll(SOON, || companion.log().contains("cannot read Envoy's stats").then_some(())).is_some());
}

/// A certificate authority and what it signed, made by openssl.
struct Authority(tempfile::TempDir);

impl Authority {
    fn new() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ]);
        authority
    }

    fn sign(&self, name: &str) {
        let file = |end: &str| format!("{name}.{end}");
        std::fs::write(self.0.path().join("ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &file("key"),
            "-out",
            &file("csr"),
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &file("csr"),
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-days",
            "2",
            "-extfile",
            "ext",
            "-out",
            &file("crt"),
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "openssl: {}", text(&output.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Status of /healthz as curl sees it; `None` if there is no connection that both sides trust.
    fn curl(&self, port: u16, client: Option<&str>) -> Option<String> {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--max-time",
            "10",
            "--write-out",
            "%{http_code} %{http_version}",
            "--output",
            "/dev/null",
        ]);
        curl.args(["--cacert", &self.path("ca.crt"), &format!("https://127.0.0.1:{port}/healthz")]);
        if let Some(name) = client {
            curl.args(["--cert", &self.path(&format!("{name}.crt")), "--key", &self.path(&format!("{name}.key"))]);
        }
        let output = curl.output().unwrap();
        output.status.success().then(|| text(&output.stdout))
    }
}

#[test]
fn https_takes_a_new_certificate_without_a_restart_and_keeps_the_old_one_over_a_broken_file() {
    let (old, new) = (Authority::new(), Authority::new());
    old.sign("server");
    new.sign("server");
    let folder = tempfile::tempdir().unwrap();
    let put = |authority: &Authority| {
        for (from, to) in [("server.crt", "tls.crt"), ("server.key", "tls.key")] {
            std::fs::copy(authority.path(from), folder.path().join(to)).unwrap();
        }
    };
    put(&old);
    let companion = Companion::start("", &["--metrics-cert-dir", &folder.path().display().to_string()]).unwrap();
    assert_eq!(old.curl(companion.port, None).as_deref(), Some("200 2"), "HTTP/2 by ALPN");
    assert_eq!(new.curl(companion.port, None), None);
    std::fs::write(folder.path().join("tls.crt"), "half a fi").unwrap();
    assert!(poll(SOON, || companion.log().contains("the ones before are kept").then_some(())).is_some());
    assert_eq!(old.curl(companion.port, None).as_deref(), Some("200 2"));
    put(&new);
    assert!(poll(SOON, || new.curl(companion.port, None)).is_some(), "{}", companion.log());
    assert_eq!(old.curl(companion.port, None), None);
}

#[test]
fn with_a_client_authority_only_its_clients_get_in() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    ours.sign("server");
    ours.sign("prometheus");
    foreign.sign("stranger");
    let tls = format!(
        "tls: {{certificate: {}, key: {}, client_ca: {}}}\n",
        ours.path("server.crt"),
        ours.path("server.key"),
        ours.path("ca.crt")
    );
    let companion = Companion::start(&tls, &[]).unwrap();
    assert!(ours.curl(companion.port, Some("prometheus")).is_some());
    assert_eq!(ours.curl(companion.port, None), None);
    for end in ["crt", "key"] {
        std::fs::copy(foreign.path(&format!("stranger.{end}")), ours.path(&format!("stranger.{end}"))).unwrap();
    }
    assert_eq!(ours.curl(companion.port, Some("stranger")), None);
}
