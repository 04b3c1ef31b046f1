#!/usr/bin/env bash
# Builds the npm package of crates/wgpu-optim-web and the demo page around it, as static files: target/web/wgpu-optim-0.1.0.tgz,
# target/web/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh
ensure_cargo
ensure_wasm_target
ensure_node

web=crates/wgpu-optim-web
built=${CARGO_TARGET_DIR:-target}
out=$built/web
echo "Building the module." >&2
# Panics name files: not those of this machine.
separator=$(printf '\037')
CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$HOME=$separator--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=" \
    cargo build --locked --profile small --target wasm32-unknown-unknown -p wgpu-optim-web
# As the tests build it, with their features, so that nothing is built twice.
cargo test --locked --workspace --no-default-features --features wgpu-optim-burn/fusion --no-run --test bindgen
[ -d $web/node_modules/binaryen ] || npm --prefix $web ci --loglevel=error --no-audit --no-fund --ignore-scripts

# The module is optimized only if it changed, because that takes half a minute.
module=$built/wasm32-unknown-unknown/small/wgpu_optim_web.wasm
if [ ! -e "$out/module.wasm" ] || ! cmp -s "$module" "$out/module.wasm"; then
    rm -rf "$out/package" "$out/module.wasm"
    mkdir -p "$out/package"
    "$built/debug/wgpu-optim-bindgen" "$module" --out "$out/package"
    rm "$out/package/wgpu_optim_bg.wasm.d.ts"
    echo "Optimizing it." >&2
    $web/node_modules/.bin/wasm-opt -Oz --strip-debug --strip-producers \
        "$out/package/wgpu_optim_bg.wasm" -o "$out/package/optimized.wasm"
    mv "$out/package/optimized.wasm" "$out/package/wgpu_optim_bg.wasm"
    cp "$module" "$out/module.wasm"
fi
cp $web/npm/package.json $web/README.md LICENSE-MIT LICENSE-APACHE "$out/package"
npm pack --silent "$out/package" --pack-destination "$out" >/dev/null
rm -rf "$out/demo"
mkdir -p "$out/demo/package"
cp -r $web/demo/. crates/wgpu-optim-cli/src/demo/{shaders,learning_rates.json} "$out/demo"
cp "$out"/package/*.js "$out"/package/*.wasm "$out/demo/package"
size=$(wc -c <"$out/package/wgpu_optim_bg.wasm")
echo "$out/package/wgpu_optim_bg.wasm: $size bytes, $(gzip -9 -c "$out/package/wgpu_optim_bg.wasm" | wc -c) with gzip" >&2
# A page on a phone loads it.
[ "$size" -le 1405000 ] || { echo "The module takes $size bytes; at most 1,405,000 are allowed." >&2; exit 1; }
