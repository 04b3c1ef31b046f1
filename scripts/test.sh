#!/usr/bin/env bash
# Runs every test of the workspace on this machine's Vulkan, Metal or DirectX 12 adapters (or on the one that
# WGPU_ADAPTER_NAME chooses), then those of the library once more on SwiftShader and through OpenGL, then those of the package
# and the demo page in Chromium. Vulkan's validation layers watch all but the last two, and the platforms' compilers see the shaders.
# SwiftShader and OpenGL run the tests of what kernels compute; with FULL=1, all tests of steps and state.
# With arguments, runs just `cargo test` with them: ./scripts/test.sh -p wgpu-optim
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh
ensure_cargo
ensure_adapter
[ $# -eq 0 ] || exec cargo test "$@"
ensure_node

# Burn without its autotune, which would take minutes of the tests on a software adapter.
packages=(--workspace --no-default-features --features wgpu-optim-burn/fusion)
failed=0
# Reports a missing tool. In CI, where everything must run, this is a failure.
missing() {
    echo "missing: $1" >&2
    [ -z "${CI:-}" ] || failed=1
}

# Vulkan's validation layers lie before every driver of Vulkan; a message from them ends the test.
validation=()
if [ "$(uname -s)" = Linux ]; then
    if ensure_validation; then
        validation=(VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_SETTINGS_PATH="$PWD/scripts/validation"
            WGPU_VALIDATION=1 WGPU_DEBUG=0) # without wgpu's debug information, whose source language old layers do not know
    else
        missing "Vulkan's validation layers (Debian: apt-get install vulkan-validationlayers)"
    fi
fi
ensure_wgpu_py || missing "wgpu-py (pip install wgpu); no other host executed a step"
env ${validation[@]+"${validation[@]}"} cargo test --no-fail-fast "${packages[@]}" || failed=1
# Checks that the layers are loaded and end a test: their best-practice checks complain about every program.
if [ ${#validation[@]} -gt 0 ] && [ "${WGPU_BACKEND:-vulkan}" = vulkan ]; then
    strict=$(mktemp -d)
    trap 'rm -r "$strict"' EXIT
    sed -e s/SYNCHRONIZATION_VALIDATION/BEST_PRACTICES/ -e s/validate_sync/validate_best_practices/ -e s/error,warn/error,warn,perf/ \
        scripts/validation/vk_layer_settings.txt >"$strict/vk_layer_settings.txt"
    said=$(env "${validation[@]}" VK_LAYER_SETTINGS_PATH="$strict" cargo test "${packages[@]}" --test steps golden:: 2>&1) &&
        { echo "A message of the validation layers did not end a test." >&2 && failed=1; }
    grep BestPractices <<<"$said" >/dev/null ||
        { echo "The validation layers were not loaded: $said" >&2 && failed=1; }
fi

# Compilers of the platforms that the kernels are translated for.
compilers=()
if ensure_compilers; then compilers+=(spirv_val); else missing "spirv-val and glslangValidator; they did not see the shaders"; fi
if ensure_dxc; then compilers+=(dxc); else missing "DirectX's shader compiler; it did not see the shaders"; fi
if [ ${#compilers[@]} -gt 0 ]; then
    said=$(cargo test "${packages[@]}" --test cpu -- --ignored "${compilers[@]}" 2>&1) || failed=1
    echo "$said"
    grep "${#compilers[@]} passed" <<<"$said" >/dev/null ||
        { echo "Not every compiler saw the shaders." >&2 && failed=1; }
fi

computes=(table:: golden:: eight_bit::bytes rounding::every rounding::split_masters_have step_averages::averages_in custom::a_base_written selection:: shape:: matrix:: gradients:: rows:: components::)
[ -z "${FULL:-}" ] || computes=()
# Runs some of the tests again on another driver, with the packages and features from above, so that nothing is built twice.
again() {
    env -u VK_ICD_FILENAMES -u VK_DRIVER_FILES -u WGPU_BACKEND -u WGPU_ADAPTER_NAME RUNS=2 WGPU_OPTIM_FEW_RECIPES=1 "$@" \
        cargo test --no-fail-fast "${packages[@]}" "${tests[@]}" || failed=1
}

# SwiftShader, which browsers use, comes with Chromium.
swiftshader=/usr/lib/chromium/vk_swiftshader_icd.json
if [ -e "$swiftshader" ]; then
    echo "The library's tests on SwiftShader:" >&2
    tests=(--test steps -- ${computes[@]+"${computes[@]}"})
    [ -z "${FULL:-}" ] || tests=(--test steps --test state -- --skip checkpoint:: --skip hostile::)
    again ${validation[@]+"${validation[@]}"} VK_ADD_DRIVER_FILES="$swiftshader" WGPU_ADAPTER_NAME=SwiftShader
else
    missing "the adapter SwiftShader (Debian: apt-get install chromium-common); its tests did not run"
fi

# OpenGL, where it computes: Mesa's software driver, or a GPU's.
if [ "$(uname -s)" = Linux ]; then
    if ensure_opengl; then
        echo "The library's tests on OpenGL:" >&2
        tests=(--test steps -- ${computes[@]+"${computes[@]}"} --skip components:: --skip rows::)
        again WGPU_BACKEND=gl
    else
        missing "OpenGL (Debian: apt-get install libegl1 libgl1-mesa-dri); its tests did not run"
    fi
fi

echo "The package and the demo page, in a browser:" >&2
if ensure_chromium && ./scripts/web.sh; then
    WEB_BUILT=$(cd "${CARGO_TARGET_DIR:-target}/web" && pwd)
    export WEB_BUILT
    node --test --test-concurrency=1 crates/wgpu-optim-web/tests/*.test.js || failed=1
    echo "What the page looks like: $WEB_BUILT/screenshots" >&2
else
    failed=1
fi
exit "$failed"
