#!/usr/bin/env bash
# Trains a digit classifier with AdamW and MGUP-AdamW on whatever GPU is there, and compares them.
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
command -v cargo >/dev/null 2>&1 || { echo "Rust is missing: install it from https://rustup.rs" >&2; exit 1; }
[ -e target/release/wgpu-optim-train ] ||
    echo "Building Burn and the trainer: some ten minutes on two cores, once." >&2
exec cargo run --release --quiet -p wgpu-optim-train -- "$@"
