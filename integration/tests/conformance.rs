//! The conformance tool itself: it passes what is right, and says what is wrong.

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use tally_integration::conformance::{Case, Names, run, server};
use tally_integration::envoy::{Envoy, Options};
use tally_integration::page::Page;
use tally_integration::tools::root;

fn cases() -> Result<Vec<Case>> {
    Case::all(&root().join("testdata/conformance")).map_err(|problem| anyhow::anyhow!(problem))
}

#[test]
fn the_filter_in_a_real_envoy_passes_every_case() -> Result<()> {
    let cases = cases()?;
    let upstream = server::start(0, cases.clone())?;
    let options = Options::to(upstream).config(r#"{"flush_interval_ms":20,"max_models":1000}"#);
    let mut envoy = Envoy::start(&options)?;
    for case in &cases {
        run(case, envoy.port, &Names::tally(), &|| envoy.page()).with_context(|| case.name.clone())?;
    }
    ensure!(envoy.alive() && envoy.vm_failures()? == 0.0, "{}", envoy.log());
    Ok(())
}

/// A gateway that counts one token too many: here the model server itself, and a page that grows by itself.
#[test]
fn a_gateway_that_counts_wrongly_is_told_by_how_much() -> Result<()> {
    let case = cases()?.into_iter().find(|case| case.name == "usage-twice").context("the case")?;
    let upstream = server::start(0, vec![case.clone()])?;
    let names = Names([("output".to_owned(), "mine_sum".to_owned())].into());
    let page = |by: f64| {
        let reads = Cell::new(0);
        move || {
            let grown = if reads.replace(1) == 0 { 0.0 } else { by };
            Ok(Page::parse(&format!("mine_sum{{model=\"m\"}} {grown}\n")))
        }
    };
    run(&case, upstream, &names, &page(7.0))?;
    let said = run(&case, upstream, &names, &page(8.0)).err().context("it passed")?.to_string();
    ensure!(said == "mine_sum grew by 8 instead of 7", "{said}");
    Ok(())
}

#[test]
fn the_server_sends_the_bytes_of_the_case() -> Result<()> {
    let case = cases()?.into_iter().find(|case| case.name == "cut-in-utf-8").context("the case")?;
    let upstream = server::start(0, vec![case.clone()])?;
    let request = tally_integration::client::Request::post(&case.path, case.request.concat());
    let answer = request.header("x-conformance-case", case.name.as_str()).send(upstream)?;
    ensure!(answer.complete && answer.body == case.answer.concat());
    Ok(())
}
