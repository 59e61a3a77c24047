#!/usr/bin/env bash
# What the tests of the live page need: headless Chromium, playwright-core to drive it, axe-core to judge it.
# usage: scripts/browser.sh          prints two lines (Chromium, the folder of the npm packages), or fails
#        scripts/browser.sh fetch    gets what is missing by package name
set -euo pipefail
. "$(dirname "$0")/lib.sh"
packages=$TOOLS/browser

find_chromium() {
    local name
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
        [ -n "$name" ] && command -v "$name" && return
    done
    return 1
}

if [ "${1:-}" = fetch ]; then
    need node nodejs
    need npm npm
    find_chromium >/dev/null || apt_install chromium fonts-dejavu-core
    if ! [ -d "$packages/node_modules/axe-core" ]; then
        say "npm install playwright-core@$PLAYWRIGHT_VERSION axe-core@$AXE_VERSION"
        mkdir -p "$packages"
        npm install --silent --no-audit --no-fund --prefix "$packages" \
            "playwright-core@$PLAYWRIGHT_VERSION" "axe-core@$AXE_VERSION" >&2
    fi
fi
[ -d "$packages/node_modules/axe-core" ] || exit 1
find_chromium
echo "$packages/node_modules"
