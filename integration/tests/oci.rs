//! The OCI images and SBOMs: the same bytes each time, every blob under its own digest, and tallyd runs out of its image.

#![allow(clippy::indexing_slicing, reason = "JSON in a test")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tally_integration::tools::{self, root};
use tempfile::TempDir;

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes both images into a new folder.
fn images() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let script = root().join("scripts/oci.py");
    let (wasm, tallyd) = (tools::filter()?, tools::tallyd()?);
    let path = |path: &Path| path.display().to_string();
    run(&path(&script), &["--wasm", &path(&wasm), "--tallyd", &path(&tallyd), "--out", &path(folder.path())])?;
    Ok(folder)
}

/// Made once for all tests: a debug build of tallyd is large.
static MADE: OnceLock<Result<TempDir, String>> = OnceLock::new();

fn made() -> Result<&'static Path> {
    match MADE.get_or_init(|| images().map_err(|error| format!("{error:#}"))) {
        Ok(folder) => Ok(folder.path()),
        Err(error) => bail!("{error}"),
    }
}

/// Unpacks a layout, checks its blobs, and unpacks its layer beside it.
fn unpack(archive: &Path) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let text = folder.path().display().to_string();
    run("tar", &["--extract", "--file", &archive.display().to_string(), "--directory", &text])?;
    for blob in fs::read_dir(at("blobs/sha256"))? {
        let blob = blob?.path();
        let sum = run("sha256sum", &[&blob.display().to_string()])?;
        let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(sum.starts_with(&name), "{name} holds {sum}");
    }
    let json = |path: &Path| -> Result<Value> { Ok(serde_json::from_str(&fs::read_to_string(path)?)?) };
    let blob =
        |digest: &Value| at("blobs/sha256").join(digest.as_str().unwrap_or_default().trim_start_matches("sha256:"));
    let manifest = json(&blob(&json(&at("index.json"))?["manifests"][0]["digest"]))?;
    let layer = blob(&manifest["layers"][0]["digest"]);
    ensure!(fs::metadata(&layer)?.len() == manifest["layers"][0]["size"].as_u64().unwrap_or_default(), "{manifest}");
    fs::create_dir(at("layer"))?;
    let to = at("layer").display().to_string();
    run("tar", &["--extract", "--gzip", "--file", &layer.display().to_string(), "--directory", &to])?;
    Ok(folder)
}

#[test]
fn the_same_artefacts_give_the_same_images_and_lists() -> Result<()> {
    let (first, second) = (made()?, images()?);
    for name in ["filter.tar", "tallyd.tar", "filter.cdx.json", "tallyd.cdx.json"] {
        ensure!(fs::read(first.join(name))? == fs::read(second.path().join(name))?, "{name} differs");
    }
    Ok(())
}

#[test]
fn the_images_hold_what_was_built_and_tallyd_runs_in_nothing_but_its_own() -> Result<()> {
    let made = made()?;
    let filter = unpack(&made.join("filter.tar"))?;
    ensure!(fs::read(filter.path().join("layer/plugin.wasm"))? == fs::read(tools::filter()?)?, "another filter");
    let tallyd = unpack(&made.join("tallyd.tar"))?;
    let inside = tallyd.path().join("layer").display().to_string();
    match run("chroot", &["--userspec=65532:65532", &inside, "/usr/bin/tallyd", "--version"]) {
        Ok(said) => ensure!(said.starts_with("tallyd "), "{said}"),
        Err(error) => println!("not run: tallyd inside its image (needs root): {error}"),
    }
    match Command::new("skopeo").arg("--version").output() {
        Ok(_) => {
            for name in ["filter", "tallyd"] {
                let archive = format!("oci-archive:{}", made.join(format!("{name}.tar")).display());
                let seen: Value = serde_json::from_str(&run("skopeo", &["inspect", &archive])?)?;
                ensure!(seen["Digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{seen}");
            }
        }
        Err(_) => println!("not run: skopeo is not installed"),
    }
    Ok(())
}

#[test]
fn the_lists_of_parts_name_every_crate_with_licence_and_hash() -> Result<()> {
    let made = made()?;
    for (name, known) in [("filter", "proxy-wasm"), ("tallyd", "axum")] {
        let list: Value = serde_json::from_str(&fs::read_to_string(made.join(format!("{name}.cdx.json")))?)?;
        ensure!(list["bomFormat"] == "CycloneDX" && list["specVersion"] == "1.5", "{name}");
        let parts = list["components"].as_array().context("components")?;
        ensure!(parts.iter().any(|part| part["name"] == known), "{name} has no {known}");
        ensure!(!parts.iter().any(|part| part["name"] == "proptest"), "{name} lists a crate of the tests");
        for part in parts {
            let own = part["name"].as_str().is_some_and(|name| name.starts_with("tally"));
            let hash = part["hashes"][0]["content"].as_str().unwrap_or_default();
            ensure!(own || (hash.len() == 64 && part["licenses"][0]["expression"].is_string()), "{part}");
        }
    }
    Ok(())
}
