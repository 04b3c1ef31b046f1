#!/usr/bin/env bash
# The tests of wgpu-optim-burn on the builds of Burn that continuous integration leaves out: without kernel fusion, and
# with the SPIR-V compiler (on SwiftShader; its matmul crashes the lavapipe of Mesa 22.3.6). Each compiles Burn again.
# Arguments choose: ./scripts/burn-builds.sh fusion-off, ./scripts/burn-builds.sh vulkan
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/adapter.sh
ensure_cargo
ensure_adapter
[ $# -gt 0 ] || set -- fusion-off vulkan
for build in "$@"; do
    echo "== $build" >&2
    case $build in
    fusion-off) cargo test -p wgpu-optim-burn --no-default-features ;;
    vulkan)
        env -u VK_ICD_FILENAMES VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json WGPU_ADAPTER_NAME=SwiftShader \
            cargo test -p wgpu-optim-burn --no-default-features --features fusion,vulkan
        ;;
    *)
        echo "unknown build '$build': use fusion-off or vulkan" >&2
        exit 2
        ;;
    esac
done
