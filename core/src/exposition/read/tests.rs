//! What the readers promise, against hand-written pages, recorded ones, and another parser.
#![allow(clippy::expect_used, clippy::panic, reason = "tests; clippy does not see a cfg of two conditions as one")]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

const VLLM: &str = include_str!("../../../../testdata/scrapes/vllm-busy.prom");
const LORA: &str = include_str!("../../../../testdata/scrapes/vllm-lora-busy.prom");
const LLAMA: &str = include_str!("../../../../testdata/scrapes/llamacpp-busy.prom");

type Row = (String, Vec<(String, String)>, u64);

/// Every sample of a page: name, sorted labels, bits of the value.
fn rows(page: &str) -> Vec<Row> {
    let row = |line| match line {
        Line::Sample { name, labels, value, .. } => {
            let mut labels: Vec<_> = labels.map(|(key, value)| (key.to_string(), value.into_owned())).collect();
            labels.sort();
            Some((name.to_string(), labels, value.to_bits()))
        }
        Line::Broken => panic!("broken line"),
        _ => None,
    };
    let mut rows: Vec<Row> = lines(page.as_bytes()).filter_map(row).collect();
    rows.sort();
    rows
}

/// The same by openmetrics-parser.
fn oracle(page: &str) -> Vec<Row> {
    use openmetrics_parser::PrometheusValue as Value;
    let page = openmetrics_parser::prometheus::parse_prometheus(page).expect("the oracle reads the page");
    let mut rows = Vec::new();
    for (name, family) in &page.families {
        for sample in family.iter_samples() {
            let mut labels: Vec<(String, String)> = sample
                .get_labelset()
                .map(|set| set.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
                .unwrap_or_default();
            labels.sort();
            match &sample.value {
                Value::Histogram(histogram) => {
                    for bucket in &histogram.buckets {
                        let mut with = labels.clone();
                        let le = if bucket.upper_bound.is_infinite() {
                            "+Inf".to_string()
                        } else {
                            format!("{:?}", bucket.upper_bound)
                        };
                        with.push(("le".to_string(), le));
                        with.sort();
                        rows.push((format!("{name}_bucket"), with, bucket.count.as_f64().to_bits()));
                    }
                    if let Some(count) = histogram.count {
                        rows.push((format!("{name}_count"), labels.clone(), (count as f64).to_bits()));
                    }
                    if let Some(sum) = histogram.sum {
                        rows.push((format!("{name}_sum"), labels.clone(), sum.as_f64().to_bits()));
                    }
                }
                Value::Summary(_) => {}
                Value::Counter(counter) => rows.push((name.clone(), labels, counter.value.as_f64().to_bits())),
                Value::Gauge(value) | Value::Unknown(value) => {
                    rows.push((name.clone(), labels, value.as_f64().to_bits()));
                }
            }
        }
    }
    rows.sort();
    rows
}

/// Bounds may be written `1` or `1.0`: both readers' texts as one number.
fn with_plain_bounds(mut rows: Vec<Row>) -> Vec<Row> {
    for (_, labels, _) in &mut rows {
        for (key, value) in labels.iter_mut().filter(|(key, _)| key == "le") {
            let bound: f64 = value.trim_start_matches('+').parse().unwrap_or_else(|_| panic!("{key}={value}"));
            *value = bound.to_string();
        }
    }
    rows.sort();
    rows
}

#[test]
fn every_sample_of_a_recorded_page_is_what_another_parser_reads() {
    for page in [VLLM, LORA, LLAMA] {
        // The recorded summaries have no quantiles: their sum and count are left to the hand-written pages.
        let summaries: Vec<String> = lines(page.as_bytes())
            .filter_map(|line| match line {
                Line::Type { name, kind: TypeKind::Summary } => Some(name.to_string()),
                _ => None,
            })
            .collect();
        let is_of_summary = |name: &str| {
            summaries.iter().any(|family| name == format!("{family}_sum") || name == format!("{family}_count"))
        };
        let mut ours = with_plain_bounds(rows(page));
        ours.retain(|(name, ..)| !is_of_summary(name));
        let theirs = with_plain_bounds(oracle(page));
        assert!(ours.len() > 10);
        assert_eq!(ours, theirs);
    }
}

#[test]
fn a_line_is_read_with_every_liberty_of_the_format_and_no_other() {
    // A test may leak: the lines borrow from their page.
    let read = |line: &str| lines(String::leak(format!("{line}\n")).as_bytes()).collect::<Vec<_>>();
    let sample = |line: &str| match read(line).as_slice() {
        [Line::Sample { name, labels, value, timestamp }] => Some((
            name.to_string(),
            labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(";"),
            *value,
            *timestamp,
        )),
        [Line::Broken] => None,
        other => panic!("{line}: {other:?}"),
    };
    let some =
        |name: &str, labels: &str, value, timestamp| Some((name.to_string(), labels.to_string(), value, timestamp));
    assert_eq!(sample("a 1"), some("a", "", 1.0, None));
    assert_eq!(sample("  a\t{} \t+Inf"), some("a", "", f64::INFINITY, None));
    assert_eq!(sample("a -Inf 1700000000123"), some("a", "", f64::NEG_INFINITY, Some(1_700_000_000_123.0)));
    assert_eq!(sample(r#"a{ b = "c" , d="e",} 1.5e3"#), some("a", "b=c;d=e", 1500.0, None));
    assert_eq!(sample(r#"a{b="x\\y\"z\nw"} 0"#), some("a", "b=x\\y\"z\nw", 0.0, None));
    assert_eq!(sample(r#"a{b="}, c=\"",d=""} 0"#), some("a", "b=}, c=\";d=", 0.0, None));
    assert_eq!(sample("vllm:x{b=\"ü\"} 1e-3\r"), some("vllm:x", "b=ü", 0.001, None));
    assert_eq!(sample(r#"a_bucket{le="1"} 3 # {trace_id="x y"} 0.5 1.7e9"#), some("a_bucket", "le=1", 3.0, None));
    assert_eq!(sample(r#"a_bucket{le="1"} 3 1.5 # {t="x"} 0.5"#), some("a_bucket", "le=1", 3.0, Some(1.5)));
    assert!(matches!(read("a NaN").as_slice(), [Line::Sample { value, .. }] if value.is_nan()));
    for broken in [
        "a",
        "a ",
        "1a 1",
        "a{b=\"c\" 1",
        "a{b=\"c} 1",
        "a{b=c} 1",
        "a{b=\"\\x\"} 1",
        "a{=\"c\"} 1",
        "a{1b=\"c\"} 1",
        "a{b=\"c\"d=\"e\"} 1",
        "a{,} 1",
        "a 0x1p3",
        "a 1_000",
        "a 1e999",
        "a one",
        "a 1 x",
        "a 1 2 3",
        "a-b 1",
        "a +NaN",
        "a 1 NaN",
        "{} 1",
        "{\"a\"} 1",
        "a{b=\"c\"}",
        "a 1,5",
    ] {
        assert_eq!(sample(broken), None, "{broken}");
    }
}

#[test]
fn head_lines_say_name_kind_and_text() {
    let page = "# HELP a_total Has \\\\ and\\nnewline \\x \"q\"\n# TYPE a_total counter\n# TYPE b untyped\n#TYPE c gauge\n\
                # TYPE d mystery\n# UNIT e seconds\n# a comment\n\n# HELP f\n# TYPE g info\n# EOF\nnever 1\n";
    let read: Vec<_> = lines(page.as_bytes()).collect();
    assert_eq!(
        read,
        [
            Line::Help { name: "a_total", text: "Has \\ and\nnewline \\x \"q\"".into() },
            Line::Type { name: "a_total", kind: TypeKind::Counter },
            Line::Type { name: "b", kind: TypeKind::Unknown },
            Line::Broken,
            Line::Help { name: "f", text: "".into() },
            Line::Type { name: "g", kind: TypeKind::Other },
            Line::Eof,
        ]
    );
}

#[test]
fn a_page_cut_inside_a_line_ends_broken() {
    assert_eq!(lines(b"a 1\nb 12").last(), Some(Line::Broken));
    assert_eq!(lines(b"a 1\n# EOF").last(), Some(Line::Eof));
    assert_eq!(lines(b"a \xff\n").last(), Some(Line::Broken));
    assert_eq!(lines(b"").last(), None);
}

#[test]
fn specs_are_read_in_the_endpoint_pickers_grammar() {
    let spec = |text: &str| text.parse::<Spec>();
    assert_eq!(spec("vllm:num_requests_waiting"), Ok(Spec::family("vllm:num_requests_waiting")));
    let with = |labels: &[(&str, &str)]| Spec {
        name: "nv_trt_llm_request_metrics".into(),
        labels: labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
    };
    assert_eq!(spec("nv_trt_llm_request_metrics{request_type=waiting}"), Ok(with(&[("request_type", "waiting")])));
    assert_eq!(spec(" nv_trt_llm_request_metrics { a = b , c=\"d e\" } "), Ok(with(&[("a", "b"), ("c", "d e")])));
    for bad in ["", "a b", "a{", "a{}", "a{b}", "a{b=}", "a{b=c", "a{b=c}d", "1a", "a{b=c,}", "a}"] {
        assert_eq!(spec(bad), Err(spec::BadSpec), "{bad}");
    }
}

fn selector(specs: &[&str]) -> Selector {
    Selector::new(specs.iter().map(|text| text.parse().expect("a spec")))
}

/// What the selective reader finds when the page comes in these pieces, and whether it ended in a line.
fn found(selector: &Selector, pieces: &[&[u8]]) -> (Vec<String>, bool) {
    let mut reader = Reader::new(selector);
    let mut all = Vec::new();
    for mut piece in pieces.iter().copied() {
        while let Some(found) = reader.next(&mut piece) {
            all.push(match found {
                Found::Broken => "broken".to_string(),
                Found::Sample(sample, matches) => {
                    format!("{} {:?} {}", sample.name, matches.iter().collect::<Vec<_>>(), sample.value)
                }
            });
        }
        assert!(piece.is_empty());
    }
    (all, reader.is_cut())
}

#[test]
fn only_wanted_series_of_a_recorded_page_are_found() {
    let selector = selector(&["vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"]);
    let (all, is_cut) = found(&selector, &[VLLM.as_bytes()]);
    // By hand: `grep -E '^vllm:(num_requests_waiting|kv_cache_usage_perc)\{' testdata/scrapes/vllm-busy.prom`.
    assert_eq!(all, ["vllm:num_requests_waiting [0] 4", "vllm:kv_cache_usage_perc [1] 0.12698412698412698"]);
    assert!(!is_cut);
}

#[test]
fn specs_of_one_name_are_told_apart_by_their_labels() {
    let selector = selector(&["m{t=waiting}", "m{t=scheduled}", "m", "k{t=fraction}"]);
    let page =
        b"m{t=\"waiting\",v=\"1\"} 7\nm{t=\"scheduled\"} 8\nk{t=\"max\"} 9\nm{t=\"other\"} 10\nk{t=\"fraction\"} 0.5\n";
    let (all, _) = found(&selector, &[page]);
    assert_eq!(all, ["m [0, 2] 7", "m [1, 2] 8", "m [2] 10", "k [3] 0.5"]);
}

#[test]
fn a_broken_unwanted_line_is_nobodys_business_and_a_wanted_one_is_told() {
    let selector = selector(&["a", "ab"]);
    let (all, is_cut) = found(&selector, &[b"x{{{\nabc 1\na 1\nab{ 3\nab 2\n\xff\xfe\n"]);
    assert_eq!(all, ["a [0] 1", "broken", "ab [1] 2"]);
    assert!(!is_cut);
}

#[test]
fn a_page_that_ends_inside_any_line_is_cut() {
    let selector = selector(&["a"]);
    for (page, expected) in [
        (&b"a 1\n"[..], false),
        (b"a 1", true),
        (b"a 1\nunwanted_and_long 1", true),
        (b"a 1\n# EOF", false),
        (b"", false),
    ] {
        assert_eq!(found(&selector, &[page]).1, expected, "{}", String::from_utf8_lossy(page));
    }
}

#[test]
fn an_endless_line_is_bounded_and_the_next_one_is_read() {
    let selector = selector(&["a"]);
    let long = vec![b'x'; select::MAX_LINE_BYTES];
    let (all, is_cut) = found(&selector, &[b"a{b=\"", &long, &long, &long, b"\"} 1\na 2\n", &long, &long, b"\na 3\n"]);
    assert_eq!(all, ["broken", "a [0] 2", "a [0] 3"]);
    assert!(!is_cut);
}

proptest! {
    /// Any cut of the same bytes gives the same result, and it is what the general reader sees.
    #[test]
    fn any_cut_of_a_page_gives_the_same_samples(cuts in prop::collection::vec(0usize..62_000, 0..12)) {
        let page = LORA.as_bytes();
        let specs = ["vllm:num_requests_waiting", "vllm:lora_requests_info", "http_requests_total{status=2xx}"];
        let selector = selector(&specs);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(page.len())).collect();
        cuts.extend([0, page.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &page[pair[0]..pair[1]]).collect();
        let expected: Vec<String> = lines(page)
            .filter_map(|line| match line {
                Line::Sample { name, labels, value, .. } => {
                    let index = specs.iter().position(|spec| spec.split('{').next() == Some(name))?;
                    let fits = index != 2 || labels.find("status").as_deref() == Some("2xx");
                    fits.then(|| format!("{name} [{index}] {value}"))
                }
                _ => None,
            })
            .collect();
        prop_assert!(expected.len() > 6);
        prop_assert_eq!(found(&selector, &pieces), (expected, false));
    }

    /// Whatever the bytes: no panic, and the end is reached.
    #[test]
    fn any_bytes_are_survived(page in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'{'), Just(b'"'), Just(b'a'), Just(b' '), any::<u8>()], 0..400), cut in 0usize..400) {
        let (head, tail) = page.split_at(cut.min(page.len()));
        let selector = selector(&["a", "aa{a=a}"]);
        prop_assert_eq!(found(&selector, &[head, tail]), found(&selector, &[&page]));
        let _ = lines(&page).count();
    }

    /// A value that the writer's escapes protect comes back as it was.
    #[test]
    fn a_label_value_survives_escape_and_read(value in "\\PC{0,20}[\\\\\"\n]{0,4}\\PC{0,20}") {
        let escaped = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let page = format!("a{{b=\"{escaped}\",c=\"d\"}} 1\n");
        let Some(Line::Sample { labels, .. }) = lines(page.as_bytes()).next() else { panic!("{page}") };
        prop_assert_eq!(labels.find("b"), Some(value.into()));
        prop_assert_eq!(labels.find("c"), Some("d".into()));
    }
}
