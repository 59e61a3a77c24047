//! Both runs of a scenario as one picture: SVG without a library, readable on white and in print.
//!
//! In: a scenario and its two runs. Out: the file's text. It scales and draws; it computes no result.

use std::fmt::Write;

use super::report::goodput;
use super::scenario::Scenario;
use super::tally::{POINTS, Tally};

/// A panel's place and axes.
struct Panel {
    left: f64,
    top: f64,
    low: f64,
    high: f64,
    is_log: bool,
}

/// Draws the run without flow control beside the run with it.
#[must_use]
pub fn svg(scenario: &Scenario, without: &Tally, with: &Tally) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#222\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    text(&mut svg, 20.0, 26.0, "start", 16, &scenario.title);
    legend(&mut svg, scenario);
    let curves = |tally: &Tally| tally.classes.iter().map(|class| class.first_token_curve.clone()).collect::<Vec<_>>();
    let all: Vec<f64> = [without, with].iter().flat_map(|tally| curves(tally)).flatten().flatten().collect();
    let (low, high) = all.iter().fold((f64::MAX, 0.1f64), |(low, high), value| (low.min(*value), high.max(*value)));
    for (left, heading, tally) in [(LEFT, "without flow control", without), (RIGHT, "with flow control", with)] {
        let panel = Panel { left, top: 92.0, low: decade(low).min(0.1), high: decade(high) * 10.0, is_log: true };
        panel.frame(&mut svg, &format!("Time to first token, {heading} (s)"), scenario.seconds);
        for (at, curve) in curves(tally).iter().enumerate() {
            panel.curve(&mut svg, curve.iter().copied(), colour(at), "");
        }
    }
    waiting(&mut svg, scenario, without, with);
    bars(&mut svg, scenario, without, with);
    svg.push_str("</svg>\n");
    svg
}

/// Requests waiting in flow control by class, and inside servers in both runs.
fn waiting(svg: &mut String, scenario: &Scenario, without: &Tally, with: &Tally) {
    let queues = with.classes.iter().map(|class| &class.waiting_curve);
    let all = queues.chain([&with.in_servers, &without.in_servers]).flatten();
    let high = 4.0 * round_step(all.fold(1.0f64, |high, value| high.max(*value)) / 4.0);
    let panel = Panel { left: LEFT, top: 342.0, low: 0.0, high, is_log: false };
    panel.frame(svg, "Requests waiting (coloured: in flow control)", scenario.seconds);
    panel.curve(svg, without.in_servers.iter().copied().map(Some), "#999", "2 4");
    panel.curve(svg, with.in_servers.iter().copied().map(Some), "#222", "6 3");
    for (at, class) in with.classes.iter().enumerate() {
        panel.curve(svg, class.waiting_curve.iter().copied().map(Some), colour(at), "");
    }
    text(svg, LEFT, panel.top + TALL + 30.0, "start", 11, "in servers: grey dots without, black with");
}

/// Goodput by class, pale without flow control and full with it.
fn bars(svg: &mut String, scenario: &Scenario, without: &Tally, with: &Tally) {
    // Room above a full bar for its label.
    let panel = Panel { left: RIGHT, top: 342.0, low: 0.0, high: 1.12, is_log: false };
    text(
        svg,
        RIGHT,
        panel.top - 8.0,
        "start",
        12,
        "First token in time, share of all asked (pale: without; full: with)",
    );
    let width = PANEL / scenario.classes.len() as f64;
    for (at, (class, (before, after))) in
        scenario.classes.iter().zip(without.classes.iter().zip(&with.classes)).enumerate()
    {
        let left = RIGHT + width * at as f64 + width * 0.15;
        for (shift, of, opacity) in [(0.0, before, 0.35), (0.36, after, 1.0)] {
            let share = goodput(of);
            let (x, top) = (left + width * shift, panel.y(share));
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\" opacity=\"{opacity}\"/>",
                width * 0.32,
                panel.y(0.0) - top,
                colour(at)
            );
            text(svg, x + width * 0.16, top - 4.0, "middle", 11, &format!("{:.0} %", share * 100.0));
        }
        text(svg, left + width * 0.34, panel.y(0.0) + 16.0, "middle", 12, &class.name);
    }
    line(svg, RIGHT, panel.y(0.0), RIGHT + PANEL, panel.y(0.0));
}

fn legend(svg: &mut String, scenario: &Scenario) {
    let mut left = 20.0;
    for (at, class) in scenario.classes.iter().enumerate() {
        let label = format!("{} (priority {}, {} ids)", class.name, class.priority, class.fairness_ids);
        let _ = writeln!(svg, "<rect x=\"{left:.1}\" y=\"40\" width=\"12\" height=\"12\" fill=\"{}\"/>", colour(at));
        text(svg, left + 17.0, 50.0, "start", 12, &label);
        left += 40.0 + 6.6 * label.chars().count() as f64;
    }
}

impl Panel {
    fn y(&self, value: f64) -> f64 {
        let share = match self.is_log {
            true => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
            false => (value - self.low) / (self.high - self.low),
        };
        self.top + TALL * (1.0 - share.clamp(0.0, 1.0))
    }

    fn frame(&self, svg: &mut String, heading: &str, seconds: f64) {
        text(svg, self.left, self.top - 8.0, "start", 12, heading);
        let ticks: Vec<f64> = match self.is_log {
            true => std::iter::successors(Some(self.low), |tick| Some(tick * 10.0))
                .take_while(|tick| *tick <= self.high * 1.01)
                .collect(),
            false => (0..=4).map(|quarter| self.high / 4.0 * f64::from(quarter)).collect(),
        };
        for tick in ticks {
            let y = self.y(tick);
            line(svg, self.left, y, self.left + PANEL, y);
            let label = if self.is_log { format!("{tick}") } else { format!("{tick:.0}") };
            text(svg, self.left - 6.0, y + 4.0, "end", 11, &label);
        }
        for quarter in 0..=4 {
            let share = f64::from(quarter) / 4.0;
            let label = format!("{:.0}", seconds * share);
            text(svg, self.left + PANEL * share, self.top + TALL + 16.0, "middle", 11, &label);
        }
        text(svg, self.left + PANEL, self.top + TALL + 30.0, "end", 11, "seconds of virtual time");
    }

    /// A curve over all points, broken where there is no value.
    fn curve(&self, svg: &mut String, values: impl Iterator<Item = Option<f64>>, colour: &str, dashes: &str) {
        let mut path = String::new();
        let mut is_down = false;
        for (at, value) in values.enumerate() {
            if let Some(value) = value {
                let x = self.left + PANEL * at as f64 / (POINTS - 1) as f64;
                let _ = write!(path, "{}{x:.1} {:.1} ", if is_down { 'L' } else { 'M' }, self.y(value));
            }
            is_down = value.is_some();
        }
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" stroke-dasharray=\"{dashes}\"/>"
        );
    }
}

fn line(svg: &mut String, x: f64, y: f64, to_x: f64, to_y: f64) {
    let _ = writeln!(svg, "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{to_x:.1}\" y2=\"{to_y:.1}\" stroke=\"#ddd\"/>");
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, size: u32, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{words}</text>");
}

/// Told apart by colour-blind readers too (Okabe and Ito).
fn colour(at: usize) -> &'static str {
    const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6a00", "#444444"];
    COLOURS.get(at % COLOURS.len()).copied().unwrap_or("#000")
}

/// The next of 1, 2, 5, 10, 20, …
fn round_step(value: f64) -> f64 {
    let unit = decade(value);
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * unit).find(|step| *step >= value).unwrap_or(unit * 10.0)
}

/// The power of ten at or below.
fn decade(value: f64) -> f64 {
    10f64.powf(value.log10().floor())
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 540.0;
const PANEL: f64 = 390.0;
const TALL: f64 = 170.0;
