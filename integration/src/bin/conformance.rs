//! `make conformance`: the corpus through a whole gateway, pass or fail per case. See docs/CONFORMANCE.md.
#![allow(clippy::print_stdout, reason = "its output")]

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tally_integration::client::Request;
use tally_integration::conformance::{Case, MEASURES, Names, run, server};
use tally_integration::envoy::{Envoy, Options};
use tally_integration::page::Page;
use tally_integration::tools;

const USAGE: &str = "conformance [NAME-PART]        the project's filter in a real Envoy
conformance --gateway PORT --metrics http://127.0.0.1:PORT/PATH --serve PORT MEASURE=SERIES… [NAME-PART]
                               any gateway on this machine that sends everything to the port of --serve;
                               MEASURE is one of";

/// What the command line says.
#[derive(Default)]
struct Args {
    gateway: Option<u16>,
    metrics: Option<String>,
    serve: u16,
    names: Names,
    part: String,
}

fn main() -> Result<ExitCode> {
    let args = parse(std::env::args().skip(1)).with_context(|| format!("{USAGE} {}", MEASURES.join(", ")))?;
    let mut cases =
        Case::all(&tools::root().join("testdata/conformance")).map_err(|problem| anyhow::anyhow!(problem))?;
    cases.retain(|case| case.name.contains(&args.part));
    let upstream = server::start(args.serve, cases.clone())?;
    let failed = match (args.gateway, &args.metrics) {
        (Some(gateway), Some(url)) => table(&cases, gateway, &args.names, &|| fetch(url))?,
        (None, None) => {
            let envoy = Envoy::start(&Options::to(upstream).config(r#"{"flush_interval_ms":20,"max_models":1000}"#))?;
            table(&cases, envoy.port, &Names::tally(), &|| envoy.page())?
        }
        _ => bail!("--gateway and --metrics go together"),
    };
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(cases: &[Case], gateway: u16, names: &Names, page: &impl Fn() -> Result<Page>) -> Result<usize> {
    let mut failed = 0;
    for case in cases {
        match run(case, gateway, names, page) {
            Ok(()) => println!("pass  {}", case.name),
            Err(problem) => {
                failed += 1;
                println!("FAIL  {}: {}", case.name, case.why);
                println!("{}", problem.to_string().lines().map(|line| format!("        {line}\n")).collect::<String>());
            }
        }
    }
    println!("{} of {} cases pass", cases.len() - failed, cases.len());
    Ok(failed)
}

fn fetch(url: &str) -> Result<Page> {
    let (port, path) = local(url).context("expected http://127.0.0.1:PORT/PATH")?;
    let answer = Request::bare("GET", &path).header("connection", "close").send(port)?;
    Ok(Page::parse(&String::from_utf8_lossy(&answer.body)))
}

fn local(url: &str) -> Option<(u16, String)> {
    let rest = url.strip_prefix("http://127.0.0.1:").or_else(|| url.strip_prefix("http://localhost:"))?;
    let (port, path) = rest.split_once('/')?;
    Some((port.parse().ok()?, format!("/{path}")))
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args> {
    let mut args = Args::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--gateway" => args.gateway = Some(value()?.parse().context("--gateway PORT")?),
            "--metrics" => args.metrics = Some(value()?),
            "--serve" => args.serve = value()?.parse().context("--serve PORT")?,
            other if other.starts_with('-') => bail!("{other} is unknown"),
            other => match other.split_once('=') {
                Some((measure, name)) if MEASURES.contains(&measure) => {
                    args.names.0.insert(measure.to_owned(), name.to_owned());
                }
                Some((measure, _)) => bail!("{measure} is no measure"),
                None => other.clone_into(&mut args.part),
            },
        }
    }
    Ok(args)
}
