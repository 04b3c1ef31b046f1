#!/usr/bin/env bash
# Verifies and measures the GPU of this machine and writes one JSON file. Takes minutes on a GPU and an hour on a software adapter.
#   ./scripts/bench-gpu.sh [FILE]        (bench-gpu.json)
#
# WGPU_OPTIM names a tool that is already built. If Python has PyTorch with CUDA, its fused AdamW, and MGUP written in its
# operations, are measured, too. WGPU_ADAPTER_NAME chooses the adapter.
set -euo pipefail
file=${1:-bench-gpu.json}
case $file in
-*)
    sed -n '2,3s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
case $file in /*) ;; *) file=$PWD/$file ;; esac
cd "$(dirname "$0")/.."
. scripts/adapter.sh
ensure_adapter
tool=${WGPU_OPTIM:-}
if [ -z "$tool" ]; then
    ensure_cargo
    cargo build --release -p wgpu-optim-cli
    tool=${CARGO_TARGET_DIR:-target}/release/wgpu-optim
fi
python=$(command -v python3 || true)
part=$(mktemp -d)
trap 'rm -rf "$part"' EXIT

step() { echo "== $*" >&2; }
step verify
"$tool" verify >"$part/verify.txt" && verified=true || verified=false
tail -n 3 "$part/verify.txt" >&2
recipes=adamw,mgup-adamw,mgup-adamw-approximate,cautious-adamw,grams,lion
sizes=(1048576 16777216 100000000)
for size in "${sizes[@]}"; do
    step "$size parameters"
    # A GPU may be too small for the largest.
    "$tool" bench --json --samples 15 --params "$size" --recipes "$recipes" >"$part/$size.json" || rm "$part/$size.json"
done
step "148 tensors"
"$tool" bench --json --samples 15 --tensors gpt --recipes "$recipes" >"$part/tensors.json"
step matrices
shapes=(1024x1024 "256x1024*24" 4096x4096)
matrices=""
for shape in "${shapes[@]}"; do
    "$tool" bench --json --samples 5 --tensors "$shape" --recipes muon,mgup-muon >"$part/matrices.json" || continue
    matrices="$matrices${matrices:+,}$(cat "$part/matrices.json")"
done
step PyTorch
if [ -n "$python" ] && "$python" scripts/bench-pytorch.py "${sizes[@]}" >"$part/pytorch.json"; then :; else
    echo null >"$part/pytorch.json"
fi

# The files are JSON already; they only need commas.
list=""
for size in "${sizes[@]}"; do
    [ ! -s "$part/$size.json" ] || list="$list${list:+,}$(cat "$part/$size.json")"
done
printf '{"verified": %s,\n"sizes": [%s],\n"tensors": %s,\n"matrices": [%s],\n"pytorch": %s}\n' \
    "$verified" "$list" "$(cat "$part/tensors.json")" "$matrices" "$(cat "$part/pytorch.json")" >"$file"
echo "$file" >&2
[ "$verified" = true ]
