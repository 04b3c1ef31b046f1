#!/usr/bin/env bash
# Fuzzes what reads input, guided by coverage: ./scripts/fuzz.sh [SECONDS_OF_EACH] [TARGET...]
# Default: 60 seconds, every target of fuzz/fuzz_targets. Inputs that were worth keeping stay in fuzz/corpus, those that fail in
# fuzz/artifacts. With CI set, it tries the same each time.
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
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "$0: '$seconds' is no number of seconds (try --help)" >&2 && exit 2; }
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
