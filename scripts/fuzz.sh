#!/usr/bin/env bash
# Fuzzes the readers of input, guided by coverage: ./scripts/fuzz.sh [SECONDS_PER_TARGET] [TARGET...]
# Default: 60 seconds, every target of fuzz/fuzz_targets. Inputs that reach new code are kept in fuzz/corpus, those that fail in
# fuzz/artifacts. With CI set, every run uses the same seed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh
case ${1:-} in
-h | --help)
    sed -n '2,5s/^# //p' "$0"
    exit
    ;;
esac
seconds=${1:-60}
[ $# -eq 0 ] || shift
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "$0: '$seconds' is not a whole number of seconds, at least 1 (try --help)" >&2 && exit 2; }
targets=("$@")
if [ $# -eq 0 ]; then
    for target in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$target" .rs)"); done
fi
ensure_cargo
ensure_adapter
ensure_cargo_fuzz
export RUST_BACKTRACE=0
# Nothing here is unsafe code, which sanitizers are for.
cargo fuzz build --sanitizer none
for target in "${targets[@]}"; do
    echo "$target: $seconds seconds" >&2
    cargo fuzz run --sanitizer none "$target" -- \
        -max_total_time="$seconds" -timeout=10 -print_final_stats=1 -verbosity=0 ${CI:+-seed=1}
done
