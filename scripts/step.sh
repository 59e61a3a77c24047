#!/usr/bin/env bash
# Runs one named step: says its name and how long it took; a failure names the step.
# usage: scripts/step.sh NAME COMMAND...
set -u
name=$1
shift
printf '\n== %s\n' "$name"
began=$SECONDS
"$@"
status=$?
if [ $status -ne 0 ]; then
    printf '\n== FAILED: %s (%s, status %d)\n' "$name" "$*" $status >&2
    exit $status
fi
printf '== %s: ok, %d s\n' "$name" $((SECONDS - began))
