//! `tallyd lora-syncer` as a real process against a replayer of vLLM's recorded answers, and against a real vLLM.
//! What is loaded is read from the server itself, never from the syncer.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tally_integration::lora::{ModelServer, Mood, Replayer, Syncer, Vllm, status};
use tally_integration::page::Page;
use tally_integration::tools::poll;
use tempfile::TempDir;

/// For what happens in the next second or two on an idle machine.
const SOON: Duration = Duration::from_secs(30);
/// The longest pause of an adapter that keeps failing is one minute.
const AFTER_A_PAUSE: Duration = Duration::from_secs(90);

/// A whole file; the lists are pairs of id and source.
fn file(port: u16, exist: &[(&str, &Path)], not_exist: &[&str]) -> String {
    let mut text = format!("vLLMLoRAConfig:\n  host: 127.0.0.1\n  port: {port}\n  name: scenario\n");
    text.push_str("  defaultBaseModel: tiny-llama\n  ensureExist:\n    models:\n");
    for (id, source) in exist {
        text.push_str(&format!("    - id: {id}\n      source: {}\n", source.display()));
    }
    text.push_str("  ensureNotExist:\n    models:\n");
    for id in not_exist {
        text.push_str(&format!("    - id: {id}\n"));
    }
    text
}

fn errors(page: &Page, id: &str, reason: &str) -> f64 {
    // A sample without its empty label is the health check's or the listing's.
    let named = |name: Option<&String>| name.map_or("", String::as_str) == id;
    let samples = page.matching("lora_syncer_errors_total", &[]);
    let own = samples.filter(|sample| named(sample.labels.get("adapter_name")));
    own.filter(|sample| sample.labels.get("reason").is_some_and(|found| found == reason))
        .map(|sample| sample.value)
        .sum()
}

fn config(page: &Page) -> (f64, f64) {
    (page.total("lora_syncer_config_valid", &[]), page.total("lora_syncer_config_generation", &[]))
}

fn last_success(page: &Page) -> Option<f64> {
    page.sum("lora_syncer_last_success_timestamp_seconds", &[])
}

fn until_listed(server: &dyn ModelServer, wanted: &[(&str, &Path)]) -> Result<()> {
    let wanted: BTreeMap<String, String> =
        wanted.iter().map(|(id, source)| ((*id).to_owned(), source.display().to_string())).collect();
    let seen = poll(SOON, || server.adapters().ok().filter(|adapters| *adapters == wanted));
    seen.map(drop).with_context(|| format!("wanted {wanted:?}, the server has {:?}", server.adapters()))
}

/// What the model says, if this server can be asked.
fn serves(server: &dyn ModelServer, model: &str, wanted: u16) -> Result<Option<String>> {
    let Some((status, text)) = server.ask(model)? else { return Ok(None) };
    ensure!(status == wanted, "a request to {model} has status {status}");
    Ok(Some(text))
}

/// A server and its syncer in the middle of their life.
struct Scene<'a> {
    server: &'a mut dyn ModelServer,
    syncer: Syncer,
    one: PathBuf,
    two: PathBuf,
    three: PathBuf,
    /// A path that becomes good later.
    late: PathBuf,
    _folder: TempDir,
}

/// The life of a server's adapters; each step is what the page and the server have to show after it.
fn scenario(server: &mut dyn ModelServer) -> Result<()> {
    let (one, two, three) = (server.adapter(1), server.adapter(2), server.adapter(3));
    let folder = tempfile::tempdir()?;
    let late = folder.path().join("late");
    let mut scene = Scene { server, syncer: Syncer::start(&[])?, one, two, three, late, _folder: folder };
    ensure!(scene.syncer.until_ready(SOON, 503)?.starts_with("no good configuration"));
    let of_one = scene.loads_and_unloads()?;
    scene.changes_a_source(&of_one)?;
    scene.breaks_and_mends_the_file()?;
    scene.dies_and_comes_back_empty(&of_one)?;
    ensure!(scene.syncer.ask("/healthz")?.status == 200);
    ensure!(scene.syncer.stop(SOON), "it does not end when asked");
    Ok(())
}

impl Scene<'_> {
    fn write(&mut self, exist: &[(&str, &Path)], not_exist: &[&str]) -> Result<()> {
        self.syncer.write(&file(self.server.port(), exist, not_exist))
    }

    /// A bad path fails alone and does not keep the Pod out of service. Out: what the first adapter says.
    fn loads_and_unloads(&mut self) -> Result<Option<String>> {
        let (one, three, late) = (self.one.clone(), self.three.clone(), self.late.clone());
        self.server.meddle("old", Some(&three))?;
        self.server.meddle("strange", Some(&three))?;
        self.write(&[("a", &one), ("late", &late)], &["old", "never-there"])?;
        self.syncer.until_status(SOON, "a", 1.0)?;
        self.syncer.until_status(SOON, "old", 0.0)?;
        self.syncer.until_status(SOON, "never-there", 0.0)?;
        self.syncer.until(SOON, "late is not found", |page| errors(page, "late", "not_found") >= 1.0)?;
        self.syncer.until_status(SOON, "late", 0.0)?;
        self.syncer.until_ready(SOON, 200)?;
        until_listed(self.server, &[("a", &one), ("strange", &three)])?;
        let of_one = serves(self.server, "a", 200)?;
        serves(self.server, "late", 404)?;
        serves(self.server, "old", 404)?;
        let page = self.syncer.page()?;
        ensure!(errors(&page, "a", "not_found") == 0.0 && last_success(&page).is_none());
        symlink(&self.two, &late)?;
        self.syncer.until_status(AFTER_A_PAUSE, "late", 1.0)?;
        self.syncer.until(SOON, "success", |page| last_success(page).is_some())?;
        Ok(of_one)
    }

    fn changes_a_source(&mut self, of_one: &Option<String>) -> Result<()> {
        let (two, three, late) = (self.two.clone(), self.three.clone(), self.late.clone());
        self.write(&[("a", &two), ("late", &late)], &["old"])?;
        until_listed(self.server, &[("a", &two), ("late", &late), ("strange", &three)])?;
        self.syncer.until_status(SOON, "a", 1.0)?;
        let of_two = serves(self.server, "a", 200)?;
        ensure!(of_two == serves(self.server, "late", 200)?, "the same weights say the same");
        ensure!(of_two.is_none() || of_two != *of_one, "the new weights say the old: {of_one:?}");
        Ok(())
    }

    /// A broken file keeps the last good one in force; a mended one counts.
    fn breaks_and_mends_the_file(&mut self) -> Result<()> {
        let (one, two, three, late) = (self.one.clone(), self.two.clone(), self.three.clone(), self.late.clone());
        let (_, generation) = config(&self.syncer.page()?);
        self.syncer.write("vLLMLoRAConfig:\n  ensureExist:\n    models:\n    - id: a\n")?;
        self.syncer.until(SOON, "invalid", |page| config(page) == (0.0, generation))?;
        let said = "line 4, column 7: vLLMLoRAConfig.ensureExist.models[0].source: expected the path or repository";
        ensure!(self.syncer.log().contains(said), "{}", self.syncer.log());
        self.server.meddle("late", None)?;
        until_listed(self.server, &[("a", &two), ("late", &late), ("strange", &three)])
            .context("by the last good file")?;
        self.write(&[("b", &one), ("late", &late)], &["a"])?;
        self.syncer.until(SOON, "valid", |page| config(page) == (1.0, generation + 1.0))?;
        until_listed(self.server, &[("b", &one), ("late", &late), ("strange", &three)])?;
        self.syncer.until_status(SOON, "a", 0.0)?;
        serves(self.server, "a", 404)?;
        Ok(())
    }

    fn dies_and_comes_back_empty(&mut self, of_one: &Option<String>) -> Result<()> {
        self.server.kill()?;
        self.syncer.until_status(SOON, "b", 0.0)?;
        ensure!(self.syncer.until_ready(SOON, 503)?.contains("unreachable"));
        self.syncer.until(SOON, "an error", |page| errors(page, "", "unreachable") >= 1.0)?;
        self.server.restart()?;
        until_listed(self.server, &[("b", &self.one), ("late", &self.late)])?;
        self.syncer.until_status(SOON, "b", 1.0)?;
        self.syncer.until_status(SOON, "late", 1.0)?;
        self.syncer.until_ready(SOON, 200)?;
        ensure!(serves(self.server, "b", 200)? == *of_one, "the same weights say the same");
        Ok(())
    }
}

#[test]
fn adapters_follow_the_file_through_the_life_of_a_replayed_vllm() -> Result<()> {
    scenario(&mut Replayer::start()?)
}

/// `make test-vllm`: installs nothing by itself here; minutes long.
#[test]
#[ignore = "needs an installed vLLM: make test-vllm"]
fn adapters_follow_the_file_through_the_life_of_a_real_vllm() -> Result<()> {
    scenario(&mut Vllm::start()?)
}

/// A syncer that has loaded `a` and then finds the server in this mood.
fn moody(mood: Mood, flags: &[&str]) -> Result<(Replayer, Syncer)> {
    let server = Replayer::start()?;
    let mut syncer = Syncer::start(flags)?;
    syncer.write(&file(server.port(), &[("a", &server.adapter(1))], &[]))?;
    syncer.until_status(SOON, "a", 1.0)?;
    server.set(mood);
    Ok((server, syncer))
}

#[test]
fn a_server_that_hangs_stops_neither_the_page_nor_the_file_nor_the_end() -> Result<()> {
    let (server, mut syncer) = moody(Mood::Silent, &[])?;
    let before = server.requests().len();
    poll(SOON, || (server.requests().len() > before).then_some(())).context("no look at the silent server")?;
    let (_, generation) = config(&syncer.page()?);
    let began = Instant::now();
    syncer.write(&file(server.port(), &[("a", &server.adapter(2))], &[]))?;
    syncer.until(SOON, "read", |page| config(page) == (1.0, generation + 1.0))?;
    // Health may hang for 10 s; a loop that waited for it would have read the file only then.
    ensure!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    ensure!(syncer.ask("/healthz")?.status == 200);
    syncer.until(SOON, "time-out", |page| errors(page, "", "timeout") >= 1.0)?;
    syncer.until_status(AFTER_A_PAUSE, "a", 0.0).context("nothing is said to be loaded after half a minute")?;
    ensure!(syncer.until_ready(SOON, 503)?.contains("timeout"));
    ensure!(syncer.stop(Duration::from_secs(8)), "it does not end while the server hangs");
    Ok(())
}

#[test]
fn loads_that_hang_end_in_time_and_leave_the_others_their_places() -> Result<()> {
    let (server, mut syncer) = moody(Mood::SlowLoads, &["--load-timeout=2"])?;
    let (one, two) = (server.adapter(1), server.adapter(2));
    let slow: Vec<String> = (0..20).map(|index| format!("slow-{index}")).collect();
    let mut exist: Vec<(&str, &Path)> = slow.iter().map(|id| (id.as_str(), one.as_path())).collect();
    exist.push(("quick", &two));
    syncer.write(&file(server.port(), &exist, &[]))?;
    syncer.until_status(SOON, "quick", 1.0)?;
    syncer.until_status(SOON, "a", 1.0)?;
    syncer.until(SOON, "time-out", |page| errors(page, "slow-7", "timeout") >= 1.0)?;
    ensure!(status(&syncer.page()?, "slow-7") == Some(0.0));
    server.set(Mood::Well);
    for id in &slow {
        syncer.until_status(AFTER_A_PAUSE, id, 1.0)?;
    }
    ensure!(server.adapters()?.len() == slow.len() + 2);
    Ok(())
}

#[test]
fn answers_that_are_none_change_nothing_and_are_told_apart() -> Result<()> {
    let (server, syncer) = moody(Mood::WebPage, &[])?;
    syncer.until(SOON, "a bad answer", |page| errors(page, "", "bad_answer") >= 1.0)?;
    server.set(Mood::Noise);
    syncer.until(SOON, "a broken answer", |page| errors(page, "", "server_error") >= 1.0)?;
    server.set(Mood::Trickle);
    syncer.until(SOON, "an answer without end", |page| errors(page, "", "timeout") >= 1.0)?;
    let loads = server.requests().iter().filter(|first| first.contains("load_lora_adapter")).count();
    ensure!(loads == 1, "only the first load may have been asked for, not {loads} calls");
    server.set(Mood::Well);
    syncer.until_status(SOON, "a", 1.0)?;
    syncer.until_ready(SOON, 200)?;
    Ok(())
}

#[test]
fn a_gigabyte_of_an_answer_is_cut_at_the_cap() -> Result<()> {
    let (server, syncer) = moody(Mood::Gigabyte, &[])?;
    let before = server.bytes();
    syncer.until(SOON, "three bad answers", |page| errors(page, "", "bad_answer") >= 3.0)?;
    // 4 MiB each is read; the rest lies in the buffers of both sockets.
    let sent = (server.bytes() - before) >> 20;
    ensure!(sent < 64, "{sent} MiB were taken");
    let peak = syncer.peak_memory()? >> 10;
    ensure!(peak < 128, "{peak} MiB held");
    server.set(Mood::Well);
    syncer.until_ready(SOON, 200)?;
    Ok(())
}

#[test]
fn a_restarted_syncer_finds_what_is_loaded_and_calls_for_nothing() -> Result<()> {
    let (server, mut first) = moody(Mood::Well, &[])?;
    ensure!(first.stop(SOON));
    let calls = || server.requests().iter().filter(|first| first.starts_with("POST")).count();
    let before = calls();
    let mut second = Syncer::start(&[])?;
    second.write(&file(server.port(), &[("a", &server.adapter(1))], &["b"]))?;
    second.until_status(SOON, "a", 1.0)?;
    second.until(SOON, "two looks", |page| page.total("lora_syncer_reconciles_total", &[("result", "ok")]) >= 2.0)?;
    ensure!(calls() == before, "{:?}", server.requests());
    Ok(())
}

#[test]
fn a_thousand_adapters_take_one_call_each_and_few_listings() -> Result<()> {
    let server = Replayer::start()?;
    let one = server.adapter(1);
    let ids: Vec<String> = (0..1000).map(|index| format!("adapter-{index}")).collect();
    let exist: Vec<(&str, &Path)> = ids.iter().map(|id| (id.as_str(), one.as_path())).collect();
    let mut syncer = Syncer::start(&[])?;
    syncer.write(&file(server.port(), &exist, &[]))?;
    syncer.until(AFTER_A_PAUSE, "all", |page| page.sum("lora_syncer_adapter_status", &[]) == Some(1000.0))?;
    let count = |what: &str| server.requests().iter().filter(|first| first.starts_with(what)).count();
    ensure!(count("POST /v1/load_lora_adapter ") == 1000, "{} loads", count("POST"));
    // One a second, not one an adapter.
    ensure!(count("GET /v1/models ") < 100, "{} listings", count("GET /v1/models "));
    syncer.until_ready(SOON, 200)?;
    Ok(())
}
