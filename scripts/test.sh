#!/usr/bin/env bash
# Runs every test of the workspace on this machine's Vulkan, Metal or DirectX 12 adapters (or on the one that
# WGPU_ADAPTER_NAME chooses), then those of the library once more on SwiftShader and through OpenGL, then those of the package
# and the demo page in Chromium.
# With arguments, runs just `cargo test` with them: ./scripts/test.sh -p wgpu-optim
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh
ensure_cargo
ensure_adapter
[ $# -eq 0 ] || exec cargo test "$@"

# Burn without its autotune, which would take minutes of the tests on a software adapter.
packages=(--workspace --no-default-features --features wgpu-optim-burn/fusion)
failed=0
cargo test --no-fail-fast "${packages[@]}" || failed=1

# Compilers of the platforms that the kernels are translated for.
if ensure_compilers; then
    cargo test "${packages[@]}" --test shaders -- --ignored || failed=1
else
    failed=1
fi

# Once more, on another driver; the same packages and features as above, so that nothing is built twice.
again() {
    env -u VK_ICD_FILENAMES -u VK_DRIVER_FILES -u WGPU_BACKEND -u WGPU_ADAPTER_NAME RUNS=2 "$@" \
        cargo test --no-fail-fast "${packages[@]}" --test golden --test matrix --test optimizer --test selection \
        --test table --test gradients --test poison --test threads "${more[@]}" || failed=1
}
# What a distribution does not have is said, and fails where everything is to run.
missing() {
    echo "missing: $1; its tests did not run." >&2
    [ -z "${CI:-}" ] || failed=1
}

# SwiftShader, which browsers use, comes with Chromium.
swiftshader=/usr/lib/chromium/vk_swiftshader_icd.json
if [ -e "$swiftshader" ]; then
    echo "The library's tests on SwiftShader:" >&2
    more=(--test components --test faults --test precision --test resize --test rows --test telemetry)
    again VK_ADD_DRIVER_FILES="$swiftshader" WGPU_ADAPTER_NAME=SwiftShader
else
    missing "the adapter SwiftShader (Debian: apt-get install chromium-common)"
fi

# OpenGL, where it computes: Mesa's software driver, or a GPU's.
if [ "$(uname -s)" = Linux ]; then
    if ensure_opengl; then
        echo "The library's tests on OpenGL:" >&2
        more=()
        again WGPU_BACKEND=gl
    else
        missing "OpenGL (Debian: apt-get install libegl1 libgl1-mesa-dri)"
    fi
fi

echo "The package and the demo page, in a browser:" >&2
if ensure_chromium && ./scripts/web.sh; then
    WEB_BUILT=$(cd "${CARGO_TARGET_DIR:-target}/web" && pwd)
    export WEB_BUILT
    node --test crates/wgpu-optim-web/tests/*.test.js || failed=1
    echo "What the page looks like: $WEB_BUILT/screenshots" >&2
else
    failed=1
fi
exit "$failed"
