#!/usr/bin/env bash
# Builds the demo page and serves it on this machine: ./scripts/demo.sh [PORT]   (8000)
set -euo pipefail
cd "$(dirname "$0")/.."
port=${1:-8000}
case $port in
-h | --help)
    sed -n '2s/^# //p' "$0"
    exit
    ;;
*[!0-9]* | ??????* | "")
    echo "usage: ./scripts/demo.sh [PORT], with a port of 1 to 65535" >&2
    exit 2
    ;;
esac
. scripts/tools.sh
ensure_node
[ -e "${CARGO_TARGET_DIR:-target}/web/module.wasm" ] ||
    echo "Building the page, once; on two cores this takes five to ten minutes." >&2
./scripts/web.sh
if [ "$(uname -s)" = Linux ]; then
    cat >&2 <<'TEXT'
Chromium uses WebGPU on Linux only if it is told to. Without a GPU, it computes with SwiftShader:
  chromium --enable-unsafe-webgpu --enable-features=Vulkan
  chromium --enable-unsafe-webgpu --enable-features=Vulkan --use-webgpu-adapter=swiftshader --use-vulkan=swiftshader --use-angle=swiftshader
TEXT
fi
exec node crates/wgpu-optim-web/tests/serve.js "${CARGO_TARGET_DIR:-target}/web/demo" "$port"
