#!/usr/bin/env python3
"""Makes OCI images and SBOMs of the built filter and of tallyd, without a Docker daemon; nothing but Python's library.

usage: scripts/oci.py [--wasm dist/tally.wasm] [--tallyd dist/tallyd] [--out dist/oci]

Leaves in the folder: filter.tar and tallyd.tar (OCI layouts; `skopeo copy oci-archive:dist/oci/filter.tar
docker://REGISTRY/NAME:TAG` pushes one), filter.cdx.json and tallyd.cdx.json (CycloneDX 1.5). Prints their digests.
The same inputs give the same digests: times are SOURCE_DATE_EPOCH (else 0), files are in order, owners are numbers.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
CREATED = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
NOBODY = 65532
IMAGE = "application/vnd.oci.image."


def version():
    return re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]


def tar(files):
    """A tar of {path: (bytes, mode)}; folders are made as needed."""
    folders = sorted({str(parent) for path in files for parent in Path(path).parents} - {"."})
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in folders:
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, EPOCH
            archive.addfile(entry)
        for path, (content, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(content), mode, EPOCH
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def described(kind, content, **more):
    return {"mediaType": IMAGE + kind, "digest": digest(content), "size": len(content), **more}


def text(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def image(files, name, operating_system, architecture, settings):
    """One layer, its configuration, manifest and index; gives the layout's tar and the manifest's digest."""
    plain = tar(files)
    # A fixed level and no time or name in the head; the last field says which system: 255, unknown.
    layer = bytearray(gzip.compress(plain, compresslevel=6, mtime=0))
    layer[9] = 255
    layer = bytes(layer)
    config = text({
        "created": CREATED,
        "architecture": architecture,
        "os": operating_system,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [digest(plain)]},
        "history": [{"created": CREATED, "created_by": "scripts/oci.py"}],
    })
    manifest = text({
        "schemaVersion": 2,
        "mediaType": IMAGE + "manifest.v1+json",
        "config": described("config.v1+json", config),
        "layers": [described("layer.v1.tar+gzip", layer)],
        "annotations": {
            "org.opencontainers.image.title": name,
            "org.opencontainers.image.version": version(),
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.created": CREATED,
        },
    })
    index = text({
        "schemaVersion": 2,
        "mediaType": IMAGE + "index.v1+json",
        "manifests": [described("manifest.v1+json", manifest, annotations={"org.opencontainers.image.ref.name": version()})],
    })
    blobs = {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": (blob, 0o644) for blob in (layer, config, manifest)}
    layout = {"oci-layout": (text({"imageLayoutVersion": "1.0.0"}), 0o644), "index.json": (index, 0o644), **blobs}
    return tar(layout), digest(manifest)


def libraries(program):
    """The shared libraries that a program is linked with, at the places where its loader looks."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    if said.returncode != 0:
        if "not a dynamic executable" in said.stdout + said.stderr or "statically linked" in said.stdout:
            return {}
        sys.exit(f"ldd {program}: {said.stderr}")
    found = {}
    for path in re.findall(r"(/\S+) \(0x", said.stdout):
        found[path.lstrip("/")] = (Path(path).resolve().read_bytes(), 0o755)
    return found


def packages(name):
    """The crates that end up in the product: normal dependencies, from cargo's own resolution."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--manifest-path", str(ROOT / "Cargo.toml")]
    command += ["--filter-platform", "wasm32-unknown-unknown" if name == "tally" else host()]
    known = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    by_id = {package["id"]: package for package in known["packages"]}
    nodes = {node["id"]: node for node in known["resolve"]["nodes"]}
    first = next(id for id, package in by_id.items() if package["name"] == name)
    edges, waiting = {}, [first]
    while waiting:
        id = waiting.pop()
        if id in edges:
            continue
        normal = [d["pkg"] for d in nodes[id]["deps"] if any(kind["kind"] is None for kind in d["dep_kinds"])]
        edges[id] = sorted(normal)
        waiting.extend(normal)
    return by_id, first, edges


def host():
    said = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    return re.search(r"^host: (\S+)", said, re.M)[1]


def checksums():
    lock = (ROOT / "Cargo.lock").read_text()
    found = re.findall(r'name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "(.+)"', lock)
    return {(name, number): checksum for name, number, checksum in found}


def sbom(name, artefact):
    """CycloneDX 1.5: the product with its hash, its crates with licence and hash, who needs whom."""
    by_id, first, edges = packages(name)
    sums = checksums()

    def reference(id):
        return f"pkg:cargo/{by_id[id]['name']}@{by_id[id]['version']}"

    def component(id):
        package = by_id[id]
        made = {"type": "library", "bom-ref": reference(id), "name": package["name"], "version": package["version"]}
        made["purl"] = reference(id)
        if package["license"]:
            # An old way to write OR.
            made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        if (package["name"], package["version"]) in sums:
            made["hashes"] = [{"alg": "SHA-256", "content": sums[package["name"], package["version"]]}]
        return made

    product = {**component(first), "type": "application"}
    product["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(artefact).hexdigest()}]
    others = sorted((component(id) for id in edges if id != first), key=lambda one: one["bom-ref"])
    needs = [{"ref": reference(id), "dependsOn": sorted({reference(other) for other in edges[id]})} for id in edges]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": CREATED, "component": product},
        "components": others,
        "dependencies": sorted(needs, key=lambda one: one["ref"]),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--wasm", default=ROOT / "dist/tally.wasm", type=Path)
    arguments.add_argument("--tallyd", default=ROOT / "dist/tallyd", type=Path)
    arguments.add_argument("--out", default=ROOT / "dist/oci", type=Path)
    chosen = arguments.parse_args()
    for path in (chosen.wasm, chosen.tallyd):
        if not path.is_file():
            sys.exit(f"{path} is missing: run `make build`")
    chosen.out.mkdir(parents=True, exist_ok=True)

    # Istio and Envoy Gateway look for plugin.wasm in the last layer of an ordinary image.
    wasm = chosen.wasm.read_bytes()
    filter_image = image({"plugin.wasm": (wasm, 0o644)}, "tally-filter", "linux", "wasm", {})

    tallyd = chosen.tallyd.read_bytes()
    files = {
        **libraries(chosen.tallyd),
        "usr/bin/tallyd": (tallyd, 0o755),
        "etc/passwd": (f"tally:x:{NOBODY}:{NOBODY}::/:/sbin/nologin\n".encode(), 0o644),
        "etc/group": (f"tally:x:{NOBODY}:\n".encode(), 0o644),
        "etc/nsswitch.conf": (b"hosts: files dns\n", 0o644),
    }
    settings = {
        "User": f"{NOBODY}:{NOBODY}",
        "Entrypoint": ["/usr/bin/tallyd"],
        "Cmd": ["serve"],
        "Env": ["PATH=/usr/bin"],
        "ExposedPorts": {"9090/tcp": {}, "9002/tcp": {}, "8080/tcp": {}},
        "WorkingDir": "/",
    }
    tallyd_image = image(files, "tallyd", "linux", ARCHITECTURE, settings)

    for name, package, artefact, (layout, manifest) in (
        ("filter", "tally", wasm, filter_image),
        ("tallyd", "tallyd", tallyd, tallyd_image),
    ):
        (chosen.out / f"{name}.tar").write_bytes(layout)
        parts = sbom(package, artefact)
        (chosen.out / f"{name}.cdx.json").write_text(json.dumps(parts, indent=1, sort_keys=True) + "\n")
        print(f"{name}.tar  {manifest}  {len(layout)} bytes, {len(parts['components'])} crates in {name}.cdx.json")


main()
