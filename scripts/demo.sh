#!/usr/bin/env bash
# Builds the demo page and serves it on this machine: ./scripts/demo.sh [PORT]
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-8000}" in
*[!0-9]* | "")
    echo "usage: ./scripts/demo.sh [PORT]" >&2
    exit 2
    ;;
esac
./scripts/web.sh
exec node crates/wgpu-optim-web/tests/serve.js "${CARGO_TARGET_DIR:-target}/web/demo" "${1:-8000}"
