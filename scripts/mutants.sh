#!/usr/bin/env bash
# Makes mistakes on purpose, one at a time, and lists those that no test notices:
#   ./scripts/mutants.sh                  the kernels and the Rust code
#   ./scripts/mutants.sh wgsl [WORD...]   the kernels and what chooses their parts: scripts/mutants.txt, or its mutants that contain
#                                         one of the words
#   ./scripts/mutants.sh rust [K/N]       the Rust code: every N-th mutant of cargo-mutants, from the K-th (0/8)
#
# Everything happens in a copy of the tree. A mutant of the list takes 10 to 60 seconds, because the library contains its kernels and
# is compiled again. The list takes about 40 minutes on two cores, the Rust code longer. WGPU_ADAPTER_NAME chooses the adapter;
# one is enough.
# Exits with 1 if a mutant survives, and with 2 if the list does not fit the tree. Not part of continuous integration.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh
case ${1:-} in
-h | --help)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit
    ;;
'' | wgsl | rust) ;;
*)
    echo "$0: unknown part '$1': use wgsl or rust (try --help)" >&2
    exit 2
    ;;
esac
part=${1:-both}
[ $# -eq 0 ] || shift
ensure_cargo
ensure_adapter
command -v timeout >/dev/null 2>&1 || { echo "timeout is missing: install GNU coreutils" >&2 && exit 2; }

list=scripts/mutants.txt
mkdir -p "${CARGO_TARGET_DIR:-target}/mutants"
out=$(cd "${CARGO_TARGET_DIR:-target}/mutants" && pwd)
# A target directory of its own: Cargo tells packages apart by their place in the workspace, and would take a mutant's library
# for that of this tree.
export CARGO_TARGET_DIR=$out/build RUST_BACKTRACE=0
tree=$out/tree
log=$out/log
survivors=0

copy_tree() {
    rm -rf "$tree"
    mkdir -p "$tree"
    git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$tree"
    # Cargo compares times: what an earlier run built may be newer than these files, and is a mutant's.
    find "$tree/src" "$tree/shaders" -type f -exec touch {} +
}

# A file with one text replaced; fails unless the file holds it once.
replaced() {
    TEXT=$2 REPLACEMENT=$3 awk '
        BEGIN { text = ENVIRON["TEXT"] }
        {
            line = ""
            rest = $0
            while (at = index(rest, text)) {
                line = line substr(rest, 1, at - 1) ENVIRON["REPLACEMENT"]
                rest = substr(rest, at + length(text))
                found++
            }
            print line rest
        }
        END { exit found != 1 }' "$1"
}

# Runs tests of a binary; their names follow it.
run_tests() {
    local binary=$1
    shift
    (cd "$tree" && timeout 600 cargo test -p wgpu-optim --test "$binary" -- "$@") </dev/null >"$log" 2>&1
}

broken() {
    echo "$1" >&2
    tail -n 30 "$log" >&2
    exit 2
}

files=() texts=() replacements=() tests=()
read_list() {
    local line file='' text='' replacement=''
    while IFS= read -r line; do
        case $line in
        '' | '#'*) ;;
        '- '*) text=${line#- } ;;
        '+'*)
            replacement=${line#+}
            replacement=${replacement# }
            ;;
        *.wgsl | *.rs) file=$line ;;
        *)
            if [ $# -eq 0 ] || printf '%s\n' "$file" "$text" "$replacement" "$line" | grep -F "$(printf '%s\n' "$@")" >/dev/null; then
                files+=("$file") texts+=("$text") replacements+=("$replacement") tests+=("$line")
            fi
            ;;
        esac
    done <"$list"
}

wgsl() {
    read_list "$@"
    [ ${#files[@]} -gt 0 ] || { echo "$list has no mutant with: $*" >&2 && exit 2; }
    local i missing=0
    for i in "${!files[@]}"; do
        if ! replaced "${files[i]}" "${texts[i]}" '' >/dev/null; then
            echo "${files[i]} must contain exactly once: ${texts[i]}" >&2
            missing=$((missing + 1))
        fi
    done
    [ "$missing" -eq 0 ] || { echo "$list: $missing mutants do not fit the tree" >&2 && exit 2; }

    # Without a mistake the same tests pass, or none of what follows means anything.
    local line
    while IFS= read -r line; do
        # shellcheck disable=SC2086 # a binary and names
        run_tests $line || broken "$line fails without a mutant:"
        grep -q 'test result: ok. [1-9]' "$log" || broken "$line runs no test:"
    done < <(printf '%s\n' "${tests[@]}" | sort -u)
    echo "kernels: ${#files[@]} mutants; their tests pass without one" >&2

    local file said status begin
    for i in "${!files[@]}"; do
        file=$tree/${files[i]}
        begin=$SECONDS
        replaced "${files[i]}" "${texts[i]}" "${replacements[i]}" >"$file"
        status=0
        # shellcheck disable=SC2086 # a binary and names
        run_tests ${tests[i]} || status=$?
        cat "${files[i]}" >"$file"
        if [ "$status" -eq 0 ]; then
            said=SURVIVED
            survivors=$((survivors + 1))
        elif [ "$status" -eq 124 ]; then
            said="killed by time"
        elif grep -Eq 'Device::create_shader_module|^shaders/.*\.wgsl:[0-9]+: ' "$log"; then
            broken "${files[i]}: a kernel is not valid WGSL, or is not linked, with: ${replacements[i]}"
        elif grep -q 'test result: FAILED' "$log"; then
            said=killed
        else
            broken "${files[i]}: neither passes nor fails with: ${replacements[i]}"
        fi
        echo "$said: ${files[i]}: ${texts[i]} -> ${replacements[i]:-nothing} (${tests[i]}; $((SECONDS - begin)) s)"
    done
}

# A file, and the tests that are about it: targets, and perhaps words, of which their names contain one.
rust_file() {
    local file=$1 name status=0 targets=()
    name=$(basename "$file" .rs)
    shift
    while [ $# -gt 0 ] && [ "${1#--}" != "$1" ]; do
        # All that Cargo is called for, or it builds every target.
        targets+=("--cargo-arg=$1")
        shift
    done
    rm -rf "${out:?}/$name"
    (cd "$tree" && cargo mutants --in-place --package wgpu-optim --file "$file" --shard "$shard" --sharding round-robin \
        --timeout 300 --output "$out/$name" --no-times --colors never "${targets[@]}" -- -- "$@") </dev/null >&2 || status=$?
    case $status in
    0 | 3) ;; # a test that never ends has noticed
    2)
        sed 's/^/SURVIVED: /' "$out/$name/mutants.out/missed.txt"
        survivors=$((survivors + $(wc -l <"$out/$name/mutants.out/missed.txt")))
        ;;
    *)
        echo "cargo mutants failed for $file" >&2
        exit 2
        ;;
    esac
}

rust() {
    shard=${1:-0/8}
    ensure_cargo_mutants
    rust_file src/plan/layout.rs --test=cpu plan::
    rust_file src/plan/pages.rs --test=cpu plan::
    rust_file src/plan/counters.rs --test=cpu plan::
    rust_file src/plan/batches.rs --lib --test=cpu --test=steps tests:: plan:: optimizer::callers
    rust_file src/plan/work.rs --test=steps optimizer::callers optimizer::the_callers optimizer::a_tensor optimizer::more_groups \
        matrix::in_the_callers selection::exact_selection_counts
    # The library's own tests have `tests::` in their names, no others do.
    rust_file src/recipe/sampling.rs --lib --test=cpu --test=steps tests:: plan:: selection::
    rust_file src/recipe/schedule.rs --lib
    rust_file src/recipe/groups.rs --test=cpu --test=steps plan:: recipes:: gradients::
    rust_file src/recipe/spec.rs --test=cpu plan::
    rust_file src/kernel/linker.rs --lib --test=cpu tests:: shaders::
    rust_file src/gpu/slices.rs --test=steps --test=state optimizer::bad_slices hostile::any_slices
    rust_file src/gpu/file.rs --test=state checkpoint::
    rust_file src/gpu/checkpoint.rs --test=state checkpoint::
}

copy_tree
[ "$part" = rust ] || wgsl "$@"
if [ "$part" != wgsl ]; then
    if [ "$part" = rust ]; then rust "$@"; else rust; fi
fi
echo "survivors: $survivors" >&2
[ "$survivors" -eq 0 ]
