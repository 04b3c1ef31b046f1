#!/usr/bin/env bash
# Trains a digit classifier with AdamW, MGUP-AdamW and MGUP-Muon on whatever GPU is there, and compares them.
# Arguments go to the program: ./scripts/train.sh --help
#
# WGPU_OPTIM_TRAIN names a program that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/adapter.sh
[ -n "${WGPU_OPTIM_TRAIN:-}" ] || ensure_cargo
ensure_adapter
if [ -n "${WGPU_OPTIM_TRAIN:-}" ]; then
    exec "$WGPU_OPTIM_TRAIN" "$@"
fi
[ -e "${CARGO_TARGET_DIR:-target}/try/wgpu-optim-train" ] ||
    echo "Building the trainer and Burn, once; on two cores this takes three to ten minutes." >&2
# In release, Burn takes 3.5 times as long to build, and the training 0.6 of the time.
exec cargo run --profile try --locked -p wgpu-optim-train -- "$@"
