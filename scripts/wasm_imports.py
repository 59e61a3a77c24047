#!/usr/bin/env python3
"""Fails if a wasm module imports anything but `env.proxy_*`: Envoy would refuse it. usage: wasm_imports.py MODULE"""
import sys

IMPORT_SECTION = 2


def number(data, at):
    """An unsigned LEB128 number and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def text(data, at):
    length, at = number(data, at)
    return data[at:at + length].decode(), at + length


def imports(data):
    at = 8
    while at < len(data):
        kind, size, at = data[at], *number(data, at + 1)
        if kind != IMPORT_SECTION:
            at += size
            continue
        count, at = number(data, at)
        for _ in range(count):
            module, at = text(data, at)
            name, at = text(data, at)
            yield module, name, data[at]
            if data[at] != 0:  # only functions have a single number after the kind, and only they may be imported
                return
            _, at = number(data, at + 1)
        return


def main():
    data = open(sys.argv[1], "rb").read()
    if data[:4] != b"\0asm":
        sys.exit(f"{sys.argv[1]} is no wasm module")
    found = list(imports(data))
    foreign = [f"{m}.{n}" for m, n, kind in found if kind != 0 or m != "env" or not n.startswith("proxy_")]
    if foreign:
        sys.exit(f"{sys.argv[1]} imports what Envoy does not offer: {', '.join(foreign)}")
    print(f"{sys.argv[1]}: {len(found)} imports, all of them env.proxy_*")


if __name__ == "__main__":
    main()
