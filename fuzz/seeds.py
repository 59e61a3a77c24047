#!/usr/bin/env python3
"""First inputs of each fuzz target, out of testdata. usage: seeds.py CORPUS-FOLDER"""
import base64
import json
import pathlib
import sys

root = pathlib.Path(__file__).resolve().parent.parent
corpus = pathlib.Path(sys.argv[1])
LONGEST = 4096
# Two cuts, of 7 and 1 bytes.
CUTS = b"\x02\x07\x01"
APIS = [("/chat/completions", 0), ("/completions", 1), ("/embeddings", 2), ("/messages", 3), ("/responses", 5)]


def write(target, name, data):
    if len(data) <= LONGEST:
        folder = corpus / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def exchange(name, path, request, kind, encoding, status, answer):
    api = next((number for end, number in APIS if path.endswith(end)), 4)
    media = {"text/event-stream": 0, "application/json": 1, "": 2}.get(kind.split(";")[0].strip().lower(), 3)
    coding = {"": 0, "gzip": 2}.get(encoding.lower(), 3)
    shape = bytes([api, {200: 0, 204: 2, 429: 4}.get(status, 5) << 5 | coding << 2 | media])
    request = request[:255]
    write("exchange", name, CUTS + shape + bytes([len(request)]) + request + answer)
    write("change", name, CUTS + bytes([0 if media == 0 else 1, len(request)]) + request + answer)
    for target in ["inflate", "json", "sse"]:
        write(target, name, CUTS + answer)


def piece(one):
    if isinstance(one, str):
        return one.encode()
    return base64.b64decode(one["base64"]) if "base64" in one else b"too long" * LONGEST


for folder in (root / "testdata/exchanges").iterdir():
    request = json.loads((folder / "request.json").read_text())
    lines = (folder / "response.headers").read_text().lower().splitlines()
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    exchange(folder.name, request["path"], request.get("body", "").encode(), headers.get("content-type", ""),
             headers.get("content-encoding", ""), int(lines[0].split()[1]), (folder / "response.body").read_bytes())
for file in (root / "testdata/conformance").iterdir():
    case = json.loads(file.read_text())
    request, response = case["request"], case["response"]
    exchange(file.stem, request["path"], b"".join(map(piece, request["body"])), response["headers"].get("content-type", ""),
             response["headers"].get("content-encoding", ""), response["status"], b"".join(map(piece, response["body"])))
for file in (root / "testdata/scrapes").glob("*.prom"):
    lines = [line for line in file.read_text().splitlines() if "num_requests_waiting" in line or "lora" in line]
    write("exposition", file.stem, CUTS + ("\n".join(lines) + "\n").encode())
# Keys with what may stand there: the filter's and tallyd's.
for number, text in enumerate([
    '{"max_models":5,"models":["a"],"flush_interval_ms":250,"paths":{"/x":"chat"},"tenant_header":"x-t","hash_tenant":true}',
    '{"model_rewrites":[{"model":"a","targets":[{"model":"b","weight":9},{"model":"c"}]}],"inject_usage":true}',
    '{"admission":{"cluster":"t","timeout_ms":5,"on_failure":"closed","objectives":{"a":-1},"fairness_headers":["x"]}}',
]):
    write("filter_config", str(number), text.encode())
for file in (root / "docs").glob("*.md"):
    for number, block in enumerate(file.read_text().split("```yaml\n")[1:]):
        write("tallyd_config", f"{file.stem}-{number}", block.split("```")[0].encode())
        write("lora_config", f"{file.stem}-{number}", block.split("```")[0].encode())
write("lora_config", "old", (root / "companion/tests/lora/old-sample.yaml").read_bytes())
# Dispatched; refused with status 429 and a body.
write("admission", "go", bytes([8, 1]))
write("admission", "refusal", bytes([8, 2, 18, 9, 8, 0xAD, 3, 18, 4]) + b"full")
