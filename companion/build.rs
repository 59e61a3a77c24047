//! Tells the binary which commit it was built from: `COMMIT_SHA` and `BUILD_REF` if set, as the endpoint picker's image
//! build has them, else what git says. It never fails for want of git.

use std::process::Command;

fn main() {
    for (name, variable, question) in [
        ("TALLY_COMMIT", "COMMIT_SHA", &["rev-parse", "HEAD"][..]),
        ("TALLY_BUILD_REF", "BUILD_REF", &["describe", "--all", "--always"]),
    ] {
        println!("cargo::rerun-if-env-changed={variable}");
        let said = std::env::var(variable).ok().filter(|value| !value.is_empty());
        println!("cargo::rustc-env={name}={}", said.or_else(|| git(question)).unwrap_or_else(|| "unknown".to_owned()));
    }
    // A new commit moves the log of HEAD; without it, git is asked at each build.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}

fn git(question: &[&str]) -> Option<String> {
    let output = Command::new("git").args(question).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
