#!/usr/bin/env python3
"""Reads a callgrind file: instructions per request, of the program itself or by function.

usage: callgrind_costs.py FILE TIMES             the program's own, without libraries
       callgrind_costs.py FILE TIMES functions   the costliest functions, libraries included
"""
import re
import sys
from collections import Counter

NAME = re.compile(r"(ob|cob|fn|cfn)=(\(\d+\))(?: (.*))?")


def costs(path):
    """(object, function, instructions) of each line's own cost."""
    names, place, is_call = {}, {}, False
    for line in open(path):
        if match := NAME.match(line):
            kind, number, name = match.groups()
            key = (kind.lstrip("c"), number)
            # A name stands where it is first used, perhaps as a callee's.
            names[key] = name or names.get(key)
            place[kind] = names[key]
        elif line.startswith("calls="):
            is_call = True
        elif re.match(r"[+\-*\d]", line):
            # After `calls=` the cost is the callee's, which is counted at the callee.
            if not is_call:
                yield place.get("ob") or "", place.get("fn") or "", int(line.split()[1])
            is_call = False


def main():
    path, times = sys.argv[1], int(sys.argv[2])
    if sys.argv[3:] == ["functions"]:
        functions = Counter()
        for _, function, instructions in costs(path):
            functions[function] += instructions
        for function, instructions in functions.most_common(30):
            print(f"  {instructions / times:10.0f} ({instructions / functions.total():6.1%})  {function[:100]}")
        return
    print(sum(instructions for library, _, instructions in costs(path) if ".so" not in library) // times)


if __name__ == "__main__":
    main()
