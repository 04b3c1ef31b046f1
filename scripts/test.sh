#!/usr/bin/env bash
# Runs every test of the workspace on every adapter that it finds: lavapipe, SwiftShader, and GPUs of this machine.
# Arguments go to cargo: ./scripts/test.sh -p wgpu-optim
#
# WGPU_OPTIM_ADAPTERS names adapters that must be there, as in WGPU_OPTIM_ADAPTERS=llvmpipe,SwiftShader.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/adapter.sh
ensure_adapter

# SwiftShader, which browsers use, comes with Chromium. A distribution may not have it.
swiftshader=/usr/lib/chromium/vk_swiftshader_icd.json
if [ -e "$swiftshader" ]; then
    export VK_ADD_DRIVER_FILES="${VK_ADD_DRIVER_FILES:+$VK_ADD_DRIVER_FILES:}$swiftshader"
else
    echo "missing: the adapter SwiftShader (Debian: apt-get install chromium-common); its tests do not run." >&2
fi

[ $# -gt 0 ] || set -- --workspace
exec cargo test --no-fail-fast "$@"
