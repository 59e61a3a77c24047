//! Instructions that Envoy executes for a request, counted by valgrind: the same on a busy machine as on a quiet one.
//!
//! In: variants and shapes. Out: docs/INSTRUCTIONS.md. One connection, one request after the other; the kernel's share is not
//! in it, and Envoy's allocator costs more than it does outside of valgrind, where it has caches for each core.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tally_integration::client::Request;
use tally_integration::tools::{self, Process, poll};
use tokio::net::TcpStream;

use tokio::io::AsyncWriteExt;

use crate::load;
use crate::shapes::Shape;
use crate::variants::{self, Parts, Variant};

/// Shapes whose pieces do not depend on how fast Envoy is.
const SHAPES: [&str; 5] = ["json-1k", "json-32k", "json-1m", "answer-40k", "sse-burst"];
/// V8 compiles what runs often a second time: only then is it what a server runs.
const WARM_UP: Duration = Duration::from_secs(10);
const REQUESTS: usize = 200;
const START: Duration = Duration::from_secs(120);
/// Calls of a probe for each request.
const CALLS: usize = 10;

/// Counts everything and writes the page.
///
/// # Errors
/// If an Envoy does not start, or an answer is wrong.
pub(crate) async fn run(upstream: u16, ext_proc: u16, parts: &Parts, shapes: &[Shape]) -> Result<()> {
    let shapes: Vec<&Shape> = shapes.iter().filter(|shape| SHAPES.contains(&shape.name)).collect();
    let variants = variants::all(parts);
    let mut counted = Vec::new();
    for variant in &variants {
        let bootstrap = |listener| variant.bootstrap(upstream, listener, ext_proc);
        counted.push(count(bootstrap, &shapes).await.with_context(|| variant.name)?);
        eprintln!("  {} is counted", variant.name);
    }
    let first: Vec<&Shape> = shapes.iter().copied().take(1).collect();
    let mut probes = Vec::new();
    for (kind, what) in variants::PROBES {
        let probe = variants::probe(parts, kind, CALLS);
        let counts = count(|listener| probe.bootstrap(upstream, listener, ext_proc), &first).await.context(kind)?;
        probes.push((what, counts.first().copied().unwrap_or_default()));
        eprintln!("  {kind} is counted");
    }
    let page = page(&variants, &shapes, &counted, &probes)?;
    println!("{page}");
    std::fs::write(tools::root().join("docs/INSTRUCTIONS.md"), page)?;
    Ok(())
}

/// Instructions of one request of each shape.
async fn count(bootstrap: impl Fn(u16) -> String, shapes: &[&Shape]) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for shape in shapes {
        let folder = tempfile::tempdir()?;
        let (config, address) = (folder.path().join("envoy.yaml"), folder.path().join("admin"));
        let port = tools::free_port()?;
        std::fs::write(&config, bootstrap(port))?;
        let mut envoy = start(&folder.path().join("counts"), &config, &address)?;
        poll(START, || {
            let admin = std::fs::read_to_string(&address).ok()?.trim().rsplit(':').next()?.parse().ok()?;
            let ready = Request::bare("GET", "/ready").header("connection", "close").send(admin).ok()?;
            (ready.status == 200).then_some(())
        })
        .context("Envoy did not become ready under valgrind")?;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let warm = std::time::Instant::now() + WARM_UP;
        while std::time::Instant::now() < warm {
            ask(&mut stream, shape).await?;
        }
        control("on", envoy.0.id())?;
        for _ in 0..REQUESTS {
            ask(&mut stream, shape).await?;
        }
        control("off", envoy.0.id())?;
        // It writes its counts when it ends.
        Command::new("kill").arg(envoy.0.id().to_string()).status()?;
        poll(START, || envoy.ended().then_some(())).context("Envoy did not end")?;
        counts.push(sum(folder.path())? / REQUESTS as u64);
    }
    Ok(counts)
}

fn start(counts: &Path, config: &Path, address: &Path) -> Result<Process> {
    let mut command = tools::child(Path::new("/usr/bin/valgrind"));
    command
        .args(["--tool=callgrind", "--instr-atstart=no", "--smc-check=all-non-file", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(tools::envoy()?)
        .args(["--disable-hot-restart", "-l", "off", "--concurrency", "1", "-c"])
        .arg(config)
        .arg("--admin-address-path")
        .arg(address);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ok(Process(child.context("valgrind")?))
}

async fn ask(stream: &mut TcpStream, shape: &Shape) -> Result<()> {
    stream.write_all(&shape.request).await?;
    load::take_answer(stream, &mut Vec::new()).await
}

fn control(instrumentation: &str, process: u32) -> Result<()> {
    let mut command = Command::new("callgrind_control");
    let status = command.args(["-i", instrumentation, &process.to_string()]).stdout(Stdio::null()).status()?;
    if !status.success() {
        bail!("callgrind_control failed");
    }
    Ok(())
}

/// All threads together: the others do next to nothing.
fn sum(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("counts-")) {
            let text = std::fs::read_to_string(&path)?;
            let totals = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
            sum += totals.and_then(|totals| totals.trim().parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(sum)
}

fn page(variants: &[Variant], shapes: &[&Shape], counted: &[Vec<u64>], probes: &[(&str, u64)]) -> Result<String> {
    let mut page = String::from(
        "# Where the instructions go\n\n\
         Written by `make bench-instructions`; no figure here is typed by hand. Instructions that Envoy's process executes for\n\
         a request, in thousands, counted by valgrind: the same on a busy machine as on a quiet one. The kernel's share is not\n\
         in them. Envoy's allocator costs more here than outside of valgrind, and copying counts as one instruction a byte, which\n\
         it does not cost. In brackets: ratio to no filter. What the filter's own code executes, function by function:\n\
         `make profile-filter`; its budget: `make instructions`.\n\n",
    );
    write!(page, "| variant |")?;
    shapes.iter().try_for_each(|shape| write!(page, " {} |", shape.name))?;
    write!(page, "\n|---|{}\n", "---|".repeat(shapes.len()))?;
    let without = counted.first().context("nothing was counted")?;
    for (variant, counts) in variants.iter().zip(counted) {
        write!(page, "| {} |", variant.name)?;
        for (count, without) in counts.iter().zip(without) {
            write!(page, " {:.0} ({:.2}) |", *count as f64 / 1e3, *count as f64 / *without as f64)?;
        }
        writeln!(page)?;
    }
    page.push_str(
        "\next_proc: Envoy's part only, without its server.\n\n## What a call costs\n\n\
         What one call of a wasm filter to Envoy adds to a request of 1 KB. Those that give bytes are dear whatever their\n\
         size: Envoy calls back into the module for memory. A filter that knows a request's path, model and answer makes at\n\
         least four of them, so that is the floor for any filter of this kind.\n\n\
         | call | thousand instructions |\n|---|---|\n",
    );
    let (_, none) = probes.first().context("no probes")?;
    for (what, count) in probes.iter().skip(1) {
        writeln!(page, "| {what} | {:.1} |", (*count as f64 - *none as f64) / 1e3 / CALLS as f64)?;
    }
    Ok(page)
}
