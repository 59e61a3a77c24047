//! The page and the picture: every figure comes out of the run.
//!
//! In: cells by shape, variant and round. Out: Markdown and SVG. A ratio is of one round; what is shown is the median over
//! rounds, with the least and the greatest.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use anyhow::{Context, Result};

use crate::measure::{Cell, Memory, STREAMS, Start, UPLOADS};
use crate::shapes::Shape;
use crate::variants::{NONE, Variant};

/// What was measured.
#[derive(Default)]
pub(crate) struct Run {
    /// Rounds of each shape.
    pub rounds: usize,
    /// By number of shape and of variant.
    pub cells: BTreeMap<(usize, usize), Vec<Cell>>,
    /// By number of variant.
    pub starts: BTreeMap<usize, Vec<Start>>,
    /// By number of variant.
    pub memories: BTreeMap<usize, Vec<Memory>>,
    /// Kilobytes resident after all shapes, by number of variant.
    pub requests_kb: Vec<f64>,
}

/// Median, least, greatest.
#[derive(Clone, Copy)]
struct Spread(f64, f64, f64);

fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_unstable_by(f64::total_cmp);
    let (least, most) = (values.first().copied().unwrap_or(f64::NAN), values.last().copied().unwrap_or(f64::NAN));
    Spread(values.get(values.len() / 2).copied().unwrap_or(f64::NAN), least, most)
}

impl Run {
    fn paired(&self, shape: usize, variant: usize, of: impl Fn(&Cell, &Cell) -> f64) -> Option<Spread> {
        let (cells, without) = (self.cells.get(&(shape, variant))?, self.cells.get(&(shape, 0))?);
        Some(spread(cells.iter().zip(without).map(|(cell, without)| of(cell, without)).collect()))
    }

    /// Envoy's processor time for a request, as a ratio to no filter.
    fn ratio(&self, shape: usize, variant: usize) -> Option<Spread> {
        self.paired(shape, variant, |cell, without| cell.envoy / without.envoy)
    }

    /// Microseconds added to a request, with the external server's.
    fn added(&self, shape: usize, variant: usize) -> Option<Spread> {
        self.paired(shape, variant, |cell, without| cell.envoy + cell.server - without.envoy - without.server)
    }
}

/// docs/BENCHMARKS.md.
///
/// # Errors
/// If the machine cannot be named.
pub(crate) fn page(run: &Run, variants: &[Variant], shapes: &[Shape]) -> Result<String> {
    let mut out = String::from(
        "# What measuring costs\n\nWritten by `make bench`; no figure here is typed by hand. Ratios and differences are paired: in each round every\n\
         variant runs beside the same round without a filter, in changing order, each through its own Envoy with one worker on one\n\
         core; clients, model server and external processor share another core. Processor time is what Envoy's threads spent on\n\
         the core (/proc/PID/task/*/schedstat), divided by the answered requests. Shown: median (least to greatest).\n\n",
    );
    machine(&mut out, run)?;
    out.push_str("\n![Added processor time](benchmarks.svg)\n\n## Variants\n\n");
    for variant in variants {
        writeln!(out, "- **{}**: {}", variant.name, variant.what)?;
    }
    for (at, shape) in shapes.iter().enumerate().filter(|(at, _)| run.cells.contains_key(&(*at, 0))) {
        traffic(&mut out, run, variants, at, shape)?;
    }
    if !run.starts.is_empty() {
        starts(&mut out, run, variants)?;
    }
    targets(&mut out, run, variants, shapes)?;
    out.push_str(
        "\n## Not measured here\n\n- The real endpoint picker, Higress' and other products' filters, a native module. **ext_proc** is the lower bound of any\n  \
         processor, since its server does nothing.\n- How the cost grows with models, streams, prompt length and workers.\n- Cache misses: the machine may be virtual (instructions: [INSTRUCTIONS.md](INSTRUCTIONS.md)). Neighbours move absolute times; ratios of one run are what to\n  trust, \
         and small differences of them are not.\n",
    );
    Ok(out)
}

fn machine(out: &mut String, run: &Run) -> Result<()> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(" unknown");
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let envoy = Command::new(tally_integration::tools::envoy()?).arg("--version").output()?;
    let envoy = String::from_utf8_lossy(&envoy.stdout).trim().rsplit("version: ").next().unwrap_or_default().to_owned();
    let bytes = std::fs::metadata(tally_integration::tools::filter()?)?.len();
    writeln!(
        out,
        "{} cores of {}; Envoy {envoy}; tally.wasm {bytes} bytes; {} rounds; load average at the end {}.",
        cpuinfo.matches("processor\t").count(),
        model.trim_start_matches([' ', '\t', ':']),
        run.rounds,
        load.split(' ').next().unwrap_or_default(),
    )?;
    Ok(())
}

fn traffic(out: &mut String, run: &Run, variants: &[Variant], at: usize, shape: &Shape) -> Result<()> {
    let per_event = shape.events > 0;
    write!(out, "\n## {}\n\n{}.\n\n| variant | CPU, ratio to none | added us a request", shape.name, shape.what)?;
    out.push_str(if per_event { " | added us an event" } else { "" });
    out.push_str(" | p50 added us | p99 added us | requests |\n|---|---|---|");
    out.push_str(if per_event { "---|" } else { "" });
    out.push_str("---|---|---|\n");
    for (number, variant) in variants.iter().enumerate() {
        let (Some(Spread(ratio, least, most)), Some(Spread(added, low, high))) =
            (run.ratio(at, number), run.added(at, number))
        else {
            continue;
        };
        let requests: usize = run.cells.get(&(at, number)).into_iter().flatten().map(|cell| cell.requests).sum();
        write!(out, "| {} | {ratio:.2} ({least:.2} to {most:.2}) | {added:.1} ({low:.1} to {high:.1})", variant.name)?;
        if per_event {
            write!(out, " | {:.2}", added / f64::from(shape.events))?;
        }
        let late = |of: fn(&Cell) -> f64| run.paired(at, number, |cell, without| of(cell) - of(without));
        let (p50, p99) = (late(|cell| cell.p50), late(|cell| cell.p99));
        let (p50, p99) = (p50.map_or(f64::NAN, |p| p.0), p99.map_or(f64::NAN, |p| p.0));
        writeln!(out, " | {p50:.0} | {p99:.0} | {requests} |")?;
    }
    out.push_str("\next_proc's added time is Envoy's and its server's together.\n");
    Ok(())
}

fn starts(out: &mut String, run: &Run, variants: &[Variant]) -> Result<()> {
    writeln!(
        out,
        "\n## Start and memory\n\n| variant | ms until ready | MB then | MB for each further worker | KB a stream ({STREAMS} open) | KB a half-sent 1 MB \
         upload ({UPLOADS} open) | MB after all shapes |\n|---|---|---|---|---|---|---|"
    )?;
    for (number, variant) in variants.iter().enumerate() {
        let (Some(starts), Some(memories)) = (run.starts.get(&number), run.memories.get(&number)) else { continue };
        let of = |of: fn(&Start) -> f64| spread(starts.iter().map(of).collect()).0;
        let memory = |of: fn(&Memory) -> f64| spread(memories.iter().map(of).collect()).0;
        writeln!(
            out,
            "| {} | {:.0} | {:.1} | {:.2} | {:.1} | {:.0} | {:.1} |",
            variant.name,
            of(|start| start.millis),
            of(|start| start.resident_kb) / 1024.0,
            of(further) / 1024.0,
            memory(|memory| memory.stream_kb),
            memory(|memory| memory.upload_kb),
            run.requests_kb.get(number).copied().unwrap_or(f64::NAN) / 1024.0,
        )?;
    }
    Ok(())
}

/// Kilobytes of a further worker: five less one, by four.
fn further(start: &Start) -> f64 {
    (start.five_workers_kb - start.resident_kb) / 4.0
}

fn targets(out: &mut String, run: &Run, variants: &[Variant], shapes: &[Shape]) -> Result<()> {
    let number = |name: &str| variants.iter().position(|variant| variant.name == name).context("no such variant");
    let (empty, tally) = (number("empty")?, number("tally")?);
    let at =
        |name: &str| shapes.iter().position(|shape| shape.name == name).filter(|at| run.cells.contains_key(&(*at, 0)));
    out.push_str("\n## Goals\n\n| goal | measured | |\n|---|---|---|\n");
    let mut row = |goal: String, measured: f64, is_met: bool| {
        writeln!(out, "| {goal} | {measured:.2} | {} |", if is_met { "met" } else { "missed" })
    };
    for (name, goal) in [("json-1k", 1.30), ("json-32k", 1.40), ("json-1m", 1.60)] {
        let Some(shape) = at(name) else { continue };
        if let Some(Spread(ratio, ..)) = run.ratio(shape, tally) {
            row(format!("CPU ratio, {name}, at most {goal:.2}"), ratio, ratio <= goal)?;
        }
    }
    for (name, goal) in [("sse-paced", 3.0), ("sse-burst", 0.7)] {
        let Some((shape, events)) = at(name).and_then(|at| Some((at, f64::from(shapes.get(at)?.events)))) else {
            continue;
        };
        if let Some(Spread(added, ..)) = run.added(shape, tally) {
            row(format!("added us an event, {name}, at most {goal}"), added / events, added / events <= goal)?;
        }
    }
    for (name, other, times) in [("ext_proc and its server", "ext_proc", 6.0), ("naive", "naive", 2.0)] {
        for shape in ["json-1k", "json-32k", "json-1m", "answer-40k", "sse-paced", "sse-burst"] {
            let Some(shape_at) = at(shape) else { continue };
            if let (Some(Spread(ours, ..)), Some(Spread(theirs, ..))) =
                (run.added(shape_at, tally), run.added(shape_at, number(other)?))
            {
                let ratio = theirs / ours.max(0.01);
                row(format!("added CPU of {name} by ours, {shape}, at least {times}"), ratio, ratio >= times)?;
            }
        }
    }
    if let (Some(ours), Some(empty)) = (run.starts.get(&tally), run.starts.get(&empty)) {
        let pairs = ours.iter().zip(empty).map(|(ours, empty)| ours.millis / empty.millis);
        let Spread(ratio, ..) = spread(pairs.collect());
        row("start, ratio to an empty filter's, at most 1.2".to_owned(), ratio, ratio <= 1.2)?;
        let Spread(worker, ..) = spread(ours.iter().map(|start| further(start) / 1024.0).collect());
        row("MB for each further worker, at most 1.5".to_owned(), worker, worker <= 1.5)?;
    }
    Ok(())
}

/// A bar for each variant and shape: added processor time, none's own as the unit.
pub(crate) fn picture(run: &Run, variants: &[Variant], shapes: &[Shape]) -> String {
    const COLOURS: [&str; 6] = ["#888", "#9ecae1", "#2b6cb0", "#dd8452", "#c9a227", "#c44e52"];
    const ROW: usize = 16;
    let (mut body, mut y) = (String::new(), 50);
    let most = 4.0;
    for (at, shape) in
        shapes.iter().enumerate().filter(|(at, shape)| shape.rate == 0 && run.cells.contains_key(&(*at, 0)))
    {
        let _ = writeln!(body, r#"<text x="10" y="{}" class="t">{}: {}</text>"#, y + 10, shape.name, shape.what);
        y += ROW + 4;
        for (number, variant) in variants.iter().enumerate().filter(|(_, variant)| variant.name != NONE) {
            let Some(Spread(ratio, ..)) = run.ratio(at, number) else { continue };
            let added = ratio - 1.0;
            // Below nothing is noise: no bar, and the figure says so.
            let width = (added.clamp(0.0, most) / most * 480.0) as u32;
            let colour = COLOURS.get(number).copied().unwrap_or("#888");
            let beyond = if added > most { " (bar cut)" } else { "" };
            let _ = writeln!(
                body,
                r#"<text x="85" y="{0}" text-anchor="end">{1}</text><rect x="90" y="{2}" width="{width}" height="12" fill="{colour}"/><text x="{3}" y="{0}">{4:+.0} %{beyond}</text>"#,
                y + 11,
                variant.name,
                y + 1,
                95 + width,
                added * 100.0
            );
            y += ROW;
        }
        y += 12;
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{y}" font-family="sans-serif" font-size="11" role="img" aria-label="Processor time that each way of measuring adds to Envoy"><style>.t{{font-weight:bold}}</style><rect width="720" height="{y}" fill="#fff"/><text x="10" y="22" font-size="15" class="t">Processor time added to Envoy, of its time without a filter</text><text x="10" y="38">Medians of one run, variants interleaved; ext_proc without its server's time.</text>{body}</svg>"##
    )
}
