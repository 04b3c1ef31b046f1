#!/usr/bin/env bash
# Compares optimizers on two small tasks: a language model and a masked autoencoder. Tables, pictures and a report.
# Arguments go to the program: ./scripts/lab.sh run cpu20 --budget 40m, ./scripts/lab.sh --help
#
# WGPU_OPTIM_LAB names a program that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/adapter.sh
[ -n "${WGPU_OPTIM_LAB:-}" ] || ensure_cargo
ensure_adapter
[ $# -gt 0 ] || set -- run quick
if [ -n "${WGPU_OPTIM_LAB:-}" ]; then
    exec "$WGPU_OPTIM_LAB" "$@"
fi
[ -e "${CARGO_TARGET_DIR:-target}/try/wgpu-optim-lab" ] ||
    echo "Building the lab and Burn, once; on two cores this takes five to fifteen minutes." >&2
exec cargo run --profile try --locked -p wgpu-optim-lab -- "$@"
