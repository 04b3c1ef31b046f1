#!/usr/bin/env bash
# Races optimizers on whatever GPU is there: each fits a picture, and a report compares them.
# Arguments go to the program: ./scripts/try.sh --help
#
# WGPU_OPTIM names a program that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/adapter.sh
[ -n "${WGPU_OPTIM:-}" ] || ensure_cargo
ensure_adapter
if [ -n "${WGPU_OPTIM:-}" ]; then
    exec "$WGPU_OPTIM" demo "$@"
fi
[ -e "${CARGO_TARGET_DIR:-target}/try/wgpu-optim" ] ||
    echo "Building the tool, once; on two cores this takes one to three minutes." >&2
exec cargo run --profile try --locked -p wgpu-optim-cli -- demo "$@"
