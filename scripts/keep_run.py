#!/usr/bin/env python3
"""Passes what a tool prints on, and with UPDATE in the environment keeps it in a page, between the tool's marks.

usage: COMMAND | keep_run.py PAGE TOOL
"""
import os
import sys


def main():
    path, tool = sys.argv[1:]
    printed = ""
    for line in sys.stdin:
        printed += line
        print(line, end="", flush=True)
    if not os.environ.get("UPDATE"):
        return
    if not printed.strip():
        sys.exit(f"{tool} printed nothing: {path} stays as it is")
    begin, end = f"<!-- written by make {tool} UPDATE=1 -->\n", f"<!-- end of make {tool} -->"
    page = open(path).read()
    if page.count(begin) != 1 or page.count(end) != 1:
        sys.exit(f"{path} has no place for {tool}")
    before, rest = page.split(begin)
    open(path, "w").write(f"{before}{begin}\n{printed.strip()}\n\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    main()
