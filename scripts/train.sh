#!/usr/bin/env bash
# Trains a digit classifier with AdamW, MGUP-AdamW and MGUP-Muon on whatever GPU is there, and compares them.
# Arguments go to the program: ./scripts/train.sh --help
#
# WGPU_OPTIM_TRAIN names a program that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/adapter.sh
ensure_adapter
if [ -n "${WGPU_OPTIM_TRAIN:-}" ]; then
    exec "$WGPU_OPTIM_TRAIN" "$@"
fi
ensure_cargo
[ -e target/release/wgpu-optim-train ] ||
    echo "Building the trainer and Burn, once; on two cores this takes a quarter of an hour or more." >&2
exec cargo run --release -p wgpu-optim-train -- "$@"
