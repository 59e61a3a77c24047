//! The index: what there is, how much of it, and how to take it.

use std::fmt::Write;

use super::{tasks, threads};

/// The page. It has no script and loads nothing.
pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    for (name, count, links, what) in rows() {
        let count = count.map_or_else(String::new, |count| count.to_string());
        let _ = write!(page, "<tr><td>{count}</td><td><a href=\"{name}?debug=1\">{name}</a></td><td>{what}</td><td>");
        for (text, link) in links {
            let _ = write!(page, "<a href=\"{name}{link}\">{text}</a> ");
        }
        page.push_str("</td></tr>\n");
    }
    page.push_str(FOOT);
    page
}

type Links = &'static [(&'static str, &'static str)];

fn rows() -> [(&'static str, Option<usize>, Links, &'static str); 6] {
    const FILE: Links = &[("download", "")];
    [
        ("allocs", None, FILE, "Memory asked for since the start, sampled."),
        ("cmdline", None, &[], "The command line, NUL between its words."),
        (
            "goroutine",
            Some(tasks::count_all()),
            &[("download", ""), ("each task", "?debug=2")],
            "Live tokio tasks by where they were started.",
        ),
        ("heap", None, &[("download", ""), ("10 s", "?seconds=10")], "Memory held now, sampled; or what a time adds."),
        (
            "profile",
            None,
            &[("download 30 s", ""), ("flame graph of 10 s", "?seconds=10&amp;format=svg")],
            "Processor time: <code>?seconds=</code> up to 600, <code>?hz=</code> up to 1000. One at a time.",
        ),
        ("threadcreate", Some(threads::count()), FILE, "Threads with their names and processor time."),
    ]
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>tallyd: profiles</title>\n\
    <style>body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:60em}td{padding:.2em 1em .2em 0;\
    vertical-align:top}td:first-child{text-align:right}pre{background:#f4f4f4;padding:.8em}</style></head>\n\
    <body><h1>/debug/pprof/</h1>\n<table>\n<tr><th>count</th><th>profile</th><th></th><th></th></tr>\n";

const FOOT: &str = "</table>\n<p>Read a download with <code>go tool pprof -http=: FILE</code>. Not here: <code>mutex</code> \
    and <code>block</code> (nothing counts waits for locks) and <code>trace</code>. <code>symbol</code> names addresses.</p>\n\
    </body></html>\n";
