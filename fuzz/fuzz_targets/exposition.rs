//! Any cut of any bytes as a metrics page gives the same wanted samples, and those that a reader of whole lines finds. What
//! is written with any label value is read back as it was.
#![no_main]

#[path = "../../core/tests/oracles/mod.rs"]
mod oracles;

use libfuzzer_sys::fuzz_target;
use tally_core::catalog;
use tally_core::exposition::read::{Found, Line, Reader, Selector, lines};
use tally_core::exposition::write::{Format, Writer};

const NAMES: [&str; 2] = ["vllm:num_requests_waiting", "x"];

fuzz_target!(|data: &[u8]| {
    let (cuts, page) = oracles::cuts_and_bytes(data);
    let selector = Selector::new(NAMES.iter().filter_map(|name| name.parse().ok()));
    let whole = select(&selector, &[page]);
    assert_eq!(select(&selector, &oracles::pieces(page, cuts)), whole);
    assert_eq!(select(&selector, &page.chunks(1).collect::<Vec<_>>()), whole);
    assert_eq!(by_lines(page), whole);
    let _ = lines(page).count();
    round_trip(&String::from_utf8_lossy(page));
});

/// Name, labels and bits of the value; `None`: broken.
type Row = Option<(String, Vec<(String, String)>, u64)>;

fn select(selector: &Selector, pieces: &[&[u8]]) -> Vec<Row> {
    let (mut reader, mut rows) = (Reader::new(selector), Vec::new());
    for piece in pieces {
        let mut piece = *piece;
        while let Some(found) = reader.next(&mut piece) {
            rows.push(match found {
                Found::Broken => None,
                Found::Sample(sample, _) => Some((
                    sample.name.to_owned(),
                    sample.labels.map(|(key, value)| (key.to_owned(), value.into_owned())).collect(),
                    sample.value.to_bits(),
                )),
            });
        }
    }
    rows
}

/// The lines that begin with a wanted name, each read as a page of its own.
fn by_lines(page: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in page.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let is_wanted = |name: &&str| {
            line.starts_with(name.as_bytes()) && matches!(line.get(name.len()), Some(b'{' | b' ' | b'\t'))
        };
        if NAMES.iter().any(|name| is_wanted(name)) {
            rows.push(match lines(line).next() {
                Some(Line::Sample { name, labels, value, .. }) => Some((
                    name.to_owned(),
                    labels.map(|(key, value)| (key.to_owned(), value.into_owned())).collect(),
                    value.to_bits(),
                )),
                _ => None,
            });
        }
    }
    rows
}

fn round_trip(value: &str) {
    let family = catalog::find("lora_syncer_adapter_status").unwrap();
    let mut writer = Writer::new(Format::Text);
    writer.family(family).sample(&[("adapter_name", value)], 1.0);
    let page = writer.finish();
    let found = lines(page.as_bytes()).find_map(|line| match line {
        Line::Sample { labels, .. } => labels.find("adapter_name").map(|value| value.into_owned()),
        Line::Broken => panic!("{page}"),
        _ => None,
    });
    assert_eq!(found.as_deref(), Some(value));
}
