//! The live page in a real browser: every state, the numbers, keyboard, screen reader, light, dark and narrow.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::{self, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use tally_core::catalog::Source;
use tally_integration::companion::Companion;
use tally_integration::demo::send_recorded;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::growing;
use tally_integration::model_server::ModelServer;
use tally_integration::tools::{self, Process, root};

const ALL: &[Source] = &[Source::Envoy, Source::Companion, Source::LoraSyncer];

/// Chromium and the npm packages; `None` if they are not installed.
fn browser() -> Option<(String, String)> {
    let output = Command::new(root().join("scripts/browser.sh")).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines().map(str::to_owned);
    let found = (lines.next()?, lines.next()?);
    output.status.success().then_some(found)
}

/// What the stub says; `control` changes it.
#[derive(Debug, Clone)]
struct Stub {
    mode: Arc<Mutex<String>>,
    began: Instant,
}

async fn metrics(State(stub): State<Stub>, headers: HeaderMap) -> (StatusCode, String) {
    let mode = stub.mode.lock().map(|mode| mode.clone()).unwrap_or_default();
    let seconds = stub.began.elapsed().as_secs_f64();
    let known = headers.get("authorization").is_some_and(|value| value == "Bearer good");
    match mode.as_str() {
        "slow" => {
            tokio::time::sleep(Duration::from_secs(4)).await;
            (StatusCode::OK, growing::text(ALL, 104.0 + seconds))
        }
        "frozen" => (StatusCode::OK, growing::text(ALL, 600.0)),
        "restarted" => (StatusCode::OK, growing::text(ALL, 5.0)),
        "empty" => (StatusCode::OK, growing::text(&[Source::Companion], 100.0)),
        "failed" => (StatusCode::INTERNAL_SERVER_ERROR, "no page".to_owned()),
        "forbidden" => (StatusCode::FORBIDDEN, "Authorization denied".to_owned()),
        "token" if !known => (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()),
        _ => (StatusCode::OK, growing::text(ALL, 100.0 + seconds)),
    }
}

async fn control(State(stub): State<Stub>, extract::Path(mode): extract::Path<String>) -> String {
    if let Ok(mut now) = stub.mode.lock() {
        now.clone_from(&mode);
    }
    mode
}

/// Where pictures go: `UPDATE=1` keeps them in docs/.
fn pictures(scratch: &Path) -> PathBuf {
    if std::env::var_os("UPDATE").is_some() { root().join("docs/pictures") } else { scratch.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_right_in_every_state_and_for_everybody() -> Result<()> {
    let Some((chromium, packages)) = browser() else {
        println!("not run: no Chromium or no playwright-core (make setup-browser)");
        return Ok(());
    };
    let stub = Stub { mode: Arc::new(Mutex::new("growing".to_owned())), began: Instant::now() };
    let server = Router::new()
        .route("/metrics", get(metrics))
        .route("/control/{mode}", get(control))
        .with_state(stub)
        .merge(tallyd::page::router());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, server).await });

    let scratch = tempfile::tempdir()?;
    let output = tokio::task::spawn_blocking(move || {
        Command::new("node")
            .arg(root().join("integration/browser/stub.mjs"))
            .args([&chromium, &packages, &base])
            .arg(scratch.path())
            .output()
    })
    .await?
    .context("node")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}

/// A script that tells on stdout where it is, and waits on stdin until the world is as it needs it.
struct Script {
    child: Process,
    says: BufReader<ChildStdout>,
    told: String,
}

impl Script {
    fn start(name: &str, arguments: &[&str]) -> Result<Self> {
        let mut child = tools::child(Path::new("node"))
            .arg(root().join("integration/browser").join(name))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("node")?;
        let says = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Self { child: Process(child), says, told: String::new() })
    }

    /// Waits until it says this line.
    fn until(&mut self, line: &str) -> Result<()> {
        loop {
            let mut said = String::new();
            ensure!(self.says.read_line(&mut said)? > 0, "the script ended before `{line}`:\n{}", self.told);
            if said.trim() == line {
                return Ok(());
            }
            self.told.push_str(&said);
        }
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.child.0.stdin.as_mut().context("stdin")?, "{line}")?)
    }
}

#[test]
fn the_real_tallyds_page_draws_real_traffic_and_survives_a_restart() -> Result<()> {
    let Some((chromium, packages)) = browser() else {
        println!("not run: no Chromium or no playwright-core (make setup-browser)");
        return Ok(());
    };
    let server = ModelServer::start()?;
    let envoy = Envoy::start(&Options::to(server.port))?;
    let config = format!(
        "auth: {{mode: none}}\nenvoy:\n- {{name: e, url: 'http://127.0.0.1:{}'}}\n\
         pools:\n- {{name: demo, engine: vllm, discovery: {{static: ['127.0.0.1:{}']}}, refresh_metrics_interval: 1s}}\n",
        envoy.admin, server.port
    );
    let companion = Companion::start(&config, &[])?;
    let (port, to) = (companion.port, envoy.port);
    let sending = std::thread::spawn(move || send_recorded(to, Duration::from_secs(30)));

    let scratch = tempfile::tempdir()?;
    let folder = pictures(scratch.path()).display().to_string();
    let base = format!("http://127.0.0.1:{port}");
    let mut script = Script::start("live.mjs", &[&chromium, &packages, &base, &folder])?;
    script.until("drawn")?;
    sending.join().ok().context("the load")??;
    script.tell("quiet")?;
    script.until("compared")?;
    drop(companion);
    script.tell("down")?;
    script.until("gone")?;
    let _again = Companion::start_at(port, &config, &[])?;
    script.tell("up")?;
    script.until("all checks passed")
}

#[test]
fn the_pages_own_arithmetic_is_right() -> Result<()> {
    let Ok(output) =
        Command::new("node").arg("--test").arg("tests/").current_dir(root().join("companion/page")).output()
    else {
        println!("not run: node is not installed (make setup)");
        return Ok(());
    };
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}
