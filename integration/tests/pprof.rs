//! Profiles of a real `tallyd`, read by the real `go tool pprof`.

// Helpers of a test may stop it too; clippy only knows the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use tally_integration::admin::{Admin, Says};
use tally_integration::client::{Leave, Request};
use tally_integration::companion::Companion;
use tally_integration::expect::{at_least, within};
use tally_integration::tools::poll;

/// A debug build takes seconds to name functions, more on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pages read before a profile is asked for.
const READS: usize = 20;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A tallyd that does nothing but read a large page of an Envoy, all the time, and hold what it read.
fn busy() -> Companion {
    let mut page = "# TYPE inference_objective_request_total counter\n".to_owned();
    for model in 0..20_000 {
        page.push_str(&format!("inference_objective_request_total{{model_name=\"a-model-with-a-name-{model}\",target_model_name=\"the-target-of-it-{model}\"}} 1\n"));
    }
    let (admin, port) = Admin::tcp(Says::Page(page)).unwrap();
    let companion =
        Companion::start(&format!("envoy: [{{url: '127.0.0.1:{port}', interval: 200ms, timeout: 30s}}]\n"), &[])
            .unwrap();
    within(PATIENCE, || companion.page(), &[at_least("inference_objective_request_total", &[], 20_000.0)]).unwrap();
    // Starting takes memory too, and profiles are samples: the reading is on top once it has gone on for a while.
    poll(PATIENCE, || (admin.asked().len() >= READS).then_some(())).unwrap();
    companion
}

/// What `go tool pprof` says of a profile; `None`, with the reason printed, where there is no Go (or, for pictures, no dot).
fn go(arguments: &[&str], profile: &[u8]) -> Option<String> {
    let needs_dot = arguments.iter().any(|argument| ["-png", "-svg"].contains(argument));
    for program in ["go"].into_iter().chain(needs_dot.then_some("dot")) {
        if Command::new(program).arg(if program == "go" { "version" } else { "-V" }).output().is_err() {
            println!("not run: no {program} here");
            return None;
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), profile).unwrap();
    let output = Command::new("go").args(["tool", "pprof"]).args(arguments).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "go tool pprof {arguments:?}: {}", text(&output.stderr));
    Some(text(&output.stdout))
}

fn get(companion: &Companion, path: &str) -> Vec<u8> {
    let answer = companion.get(path, None).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", text(&answer.body));
    answer.body
}

#[test]
fn go_reads_each_profile_and_names_our_functions() {
    let companion = busy();
    // Memory first: naming functions needs much of it, and gives it back.
    let allocs = get(&companion, "/debug/pprof/allocs");
    let heap = get(&companion, "/debug/pprof/heap?gc=1");
    let cpu = get(&companion, "/debug/pprof/profile?seconds=3&hz=500");
    for (name, profile, kind) in
        [("cpu", &cpu, "Type: cpu"), ("heap", &heap, "Type: inuse_space"), ("allocs", &allocs, "Type: alloc_space")]
    {
        let Some(top) = go(&["-top", "-cum", "-nodecount=400"], profile) else { return };
        assert!(top.contains(kind), "{name}: {top}");
        // The loop that this tallyd is in, and the memory that it holds, are what it reads. Half of the memory is a copy.
        let share = share_of(&top, "tallyd::envoy::families::Families::parse");
        assert!(share > 20.0, "{name}: {share} %\n{top}");
        for format in ["-png", "-svg"] {
            if let Some(picture) = go(&[format, "-output=/dev/stdout"], profile) {
                assert!(picture.len() > 1000, "{name} {format}");
            }
        }
    }
    for (name, known) in [("goroutine", "reader of an Envoy"), ("threadcreate", "thread tokio-rt-worker")] {
        let Some(top) = go(&["-top"], &get(&companion, &format!("/debug/pprof/{name}"))) else { return };
        assert!(top.contains(known) && top.contains(&format!("Type: {name}")), "{top}");
    }
}

/// Cumulated share of a function in the output of `-top`, in percent.
fn share_of(top: &str, function: &str) -> f64 {
    let line = top.lines().find(|line| line.ends_with(function) || line.contains(&format!("{function} ")));
    let columns: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    columns.get(4).and_then(|share| share.trim_end_matches('%').parse().ok()).unwrap_or(0.0)
}

#[test]
fn go_takes_a_profile_over_http_as_users_do() {
    let companion = busy();
    let url = format!("http://127.0.0.1:{}/debug/pprof/profile?seconds=10", companion.port);
    // It waits for half as long again as the profile takes, so this is also about naming functions in five seconds.
    let folder = tempfile::tempdir().unwrap();
    let mut pprof = Command::new("go");
    pprof.args(["tool", "pprof", "-top", &url]).env("PPROF_TMPDIR", folder.path());
    let Ok(output) = pprof.output() else { return println!("not run: no go here") };
    assert!(output.status.success() && text(&output.stdout).contains("Type: cpu"), "{}", text(&output.stderr));
}

#[test]
fn people_get_text_an_index_and_a_flame_graph() {
    let companion = busy();
    let index = text(&get(&companion, "/debug/pprof/"));
    for name in ["allocs", "cmdline", "goroutine", "heap", "profile", "threadcreate"] {
        assert!(index.contains(&format!("<a href=\"{name}?debug=1\">")), "{name}");
        if name != "profile" {
            get(&companion, &format!("/debug/pprof/{name}?debug=1"));
        }
    }
    let heap = text(&get(&companion, "/debug/pprof/heap?debug=1"));
    assert!(
        heap.starts_with("heap profile: ") && heap.contains("tallyd::envoy::families::Families::parse"),
        "{heap:.300}"
    );
    let tasks = text(&get(&companion, "/debug/pprof/goroutine?debug=2"));
    assert!(tasks.contains("reader of an Envoy\n\tcompanion/src/envoy/mod.rs:"), "{tasks}");
    let svg = text(&get(&companion, "/debug/pprof/profile?seconds=2&format=svg"));
    assert!(svg.contains("<svg") && svg.contains("tallyd::envoy::families"), "{svg:.300}");
    assert!(text(&get(&companion, "/debug/pprof/cmdline")).contains("tallyd\0serve\0"));
}

#[test]
fn what_is_not_there_is_404_in_words_and_wrong_parameters_are_400() {
    let companion = Companion::start("", &[]).unwrap();
    for (path, status, words) in [
        ("/debug/pprof/mutex", 404, "how long tallyd waits for locks"),
        ("/debug/pprof/block", 404, "how long tallyd waits for locks"),
        ("/debug/pprof/trace", 404, "goroutine?debug=2"),
        ("/debug/pprof/other", 404, "/debug/pprof/ lists what there is"),
        ("/debug/pprof/profile?seconds=9999", 400, "from 1 to 600"),
        ("/debug/pprof/profile?hz=0", 400, "from 1 to 1000"),
    ] {
        let answer = companion.get(path, None).unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert!(text(&answer.body).contains(words), "{path}: {}", text(&answer.body));
    }
    let off = Companion::start("", &["--enable-pprof=false"]).unwrap();
    for path in ["/debug/pprof/", "/debug/pprof/heap"] {
        let answer = off.get(path, None).unwrap();
        assert_eq!((answer.status, text(&answer.body).contains("switched off")), (404, true), "{path}");
    }
    assert_eq!(off.get("/metrics", None).unwrap().status, 200);
}

#[test]
fn profiles_are_behind_the_same_guard_as_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, "secret\n").unwrap();
    let companion = Companion::start("", &["--token-file", &file.display().to_string()]).unwrap();
    for path in [
        "/debug/pprof/",
        "/debug/pprof/heap",
        "/debug/pprof/profile?seconds=1",
        "/debug/pprof/cmdline",
        "/debug/pprof/symbol",
    ] {
        assert_eq!(companion.get(path, None).unwrap().status, 401, "{path}");
    }
    assert_eq!(companion.get("/debug/pprof/cmdline", Some("secret")).unwrap().status, 200);
}

#[test]
fn there_is_one_cpu_profile_at_a_time_and_one_who_leaves_ends_his() {
    let companion = Companion::start("", &[]).unwrap();
    let second = || {
        let request = Request::bare("GET", "/debug/pprof/profile?seconds=1");
        request.leaving(Leave::After(Duration::from_secs(20))).send(companion.port).unwrap()
    };
    // Whoever comes first to the timer has it; now and then that is the second.
    let (first, refused) = poll(PATIENCE, || {
        let mut first = TcpStream::connect(("127.0.0.1", companion.port)).unwrap();
        first.write_all(b"GET /debug/pprof/profile?seconds=300 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let answer = second();
        (answer.status == 409).then_some((first, answer))
    })
    .expect("409 while another is taken");
    assert!(text(&refused.body).contains("another CPU profile is being taken"));
    drop(first);
    assert!(poll(PATIENCE, || (second().status == 200).then_some(())).is_some(), "the one who left holds the timer");
}

#[test]
fn a_slow_reader_and_ten_at_once_do_not_hold_up_metrics() {
    let companion = busy();
    let mut slow = TcpStream::connect(("127.0.0.1", companion.port)).unwrap();
    slow.write_all(b"GET /debug/pprof/heap?debug=1 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let port = companion.port;
    let many: Vec<_> = [
        "heap",
        "allocs",
        "profile?seconds=1",
        "goroutine",
        "threadcreate",
        "heap?debug=1",
        "profile?seconds=1",
        "goroutine?debug=2",
        "heap",
        "symbol",
    ]
    .into_iter()
    .map(|name| {
        std::thread::spawn(move || {
            Request::bare("GET", &format!("/debug/pprof/{name}"))
                .header("connection", "close")
                .send(port)
                .unwrap()
                .status
        })
    })
    .collect();
    let mut slowest = Duration::ZERO;
    while many.iter().any(|thread| !thread.is_finished()) {
        let began = Instant::now();
        assert_eq!(companion.get("/readyz", None).unwrap().status, 200);
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let statuses: Vec<_> = many.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(statuses.iter().all(|status| [200, 409].contains(status)), "{statuses:?}");
    companion.page().unwrap();
    let mut rest = [0; 64];
    assert!(slow.read(&mut rest).unwrap() > 0);
}
