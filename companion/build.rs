//! Tells the program which commit it is built from: `TALLY_COMMIT` and `TALLY_BUILD_REF`, from the environment (images
//! are built without a repository), else from git, else `unknown`.

use std::path::Path;
use std::process::Command;

fn main() {
    for (variable, arguments) in [
        ("TALLY_COMMIT", ["rev-parse", "HEAD"].as_slice()),
        ("TALLY_BUILD_REF", ["describe", "--tags", "--always", "--dirty", "--exclude=*"].as_slice()),
    ] {
        println!("cargo::rerun-if-env-changed={variable}");
        let given = std::env::var(variable).ok().filter(|value| !value.is_empty());
        let value = given.or_else(|| git(arguments)).unwrap_or_else(|| "unknown".to_owned());
        println!("cargo::rustc-env={variable}={value}");
    }
    // Only where a commit moves: a path that does not exist would build again each time.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (!text.is_empty() && !text.contains('\n')).then(|| text.to_owned())
}
