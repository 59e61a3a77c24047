//! The course of each measure as a small graph, over time.

use std::fmt::Write;

use super::sample::{MEASURES, Sample};

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 70.0;
const COLUMNS: usize = 2;
const CELL: (f64, f64) = (380.0, 125.0);
const TOP: f64 = 50.0;

/// SVG; what lies before sample `warm` is the warm-up.
pub(super) fn draw(samples: &[Sample], warm: usize) -> String {
    let rows = MEASURES.len().div_ceil(COLUMNS);
    let (width, height) = (CELL.0 * COLUMNS as f64 + 20.0, TOP + CELL.1 * rows as f64);
    let end = samples.last().map_or(1.0, |sample| sample.seconds).max(1.0);
    let requests = samples.last().map_or(0.0, |sample| sample.requests);
    let scrapes = samples.last().map_or(0.0, |sample| sample.scrapes);
    let mut body = String::new();
    for (at, measure) in MEASURES.iter().enumerate() {
        let values: Vec<f64> = samples.iter().filter_map(|sample| sample.values.get(at).copied()).collect();
        // Each scale begins at 0: what is flat looks flat.
        let most = values.iter().copied().fold(0.0, f64::max).max(1e-9) * 1.15;
        let (x, y) = (20.0 + CELL.0 * (at % COLUMNS) as f64, TOP + CELL.1 * (at / COLUMNS) as f64);
        let place = |seconds: f64, value: f64| (x + seconds / end * WIDTH, y + 20.0 + HEIGHT * (1.0 - value / most));
        let points: String = samples.iter().zip(&values).map(|(sample, value)| place(sample.seconds, *value)).fold(
            String::new(),
            |mut text, (x, y)| {
                let _ = write!(text, "{x:.1},{y:.1} ");
                text
            },
        );
        let warm_end = samples.get(warm).map_or(0.0, |sample| sample.seconds) / end * WIDTH;
        let last = values.last().copied().unwrap_or_default();
        let digits = if measure.unit.is_empty() { 0 } else { 1 };
        let _ = writeln!(
            body,
            r##"<text x="{x}" y="{}" class="t">{}: {last:.digits$} {}</text><rect x="{x}" y="{}" width="{warm_end:.1}" height="{HEIGHT}" fill="#eee"/><polyline points="{points}" fill="none" stroke="#2b6cb0" stroke-width="1.5"/>"##,
            y + 12.0,
            measure.name,
            measure.unit,
            y + 20.0,
        );
        let _ = writeln!(
            body,
            r##"<line x1="{x}" y1="{0}" x2="{1}" y2="{0}" stroke="#999"/>"##,
            y + 20.0 + HEIGHT,
            x + WIDTH
        );
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="11" role="img" aria-label="Memory, series, tasks and descriptors over a soak"><style>.t{{font-weight:bold}}</style><rect width="{width}" height="{height}" fill="#fff"/><text x="20" y="20" font-size="15" class="t">{requests:.0} requests and {scrapes:.0} scrapes in {end:.0} s</text><text x="20" y="36">Each scale begins at 0; grey is the warm-up.</text>{body}</svg>
"##
    )
}
