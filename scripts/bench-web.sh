#!/usr/bin/env bash
# Measures the package in a browser, and then the native build on the same software adapter, SwiftShader.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh
ensure_cargo
ensure_chromium
ensure_node
./scripts/web.sh
echo "In Chromium, on SwiftShader:"
WEB_BUILT=$(cd "${CARGO_TARGET_DIR:-target}/web" && pwd)
export WEB_BUILT
node crates/wgpu-optim-web/tests/speed.js
swiftshader=${SWIFTSHADER:-/usr/lib/chromium/vk_swiftshader_icd.json}
[ -e "$swiftshader" ] || exit 0
export WGPU_ADAPTER_NAME=SwiftShader VK_ADD_DRIVER_FILES="$swiftshader"
echo "Native, on SwiftShader:"
cargo run --quiet --release -p wgpu-optim-cli -- bench --params 1048576 --samples 7 --recipes adamw,mgup-adamw
cargo run --quiet --release -p wgpu-optim-cli -- demo --optimizers mgup-adamw --size 128 --gaussians 500 --steps 51 --out "$WEB_BUILT/native"
