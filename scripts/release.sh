#!/usr/bin/env bash
# Checks that this tree can be released, and publishes nothing: one version everywhere, packages that build, documentation as docs.rs
# builds it, and no breaking change since the last tag that the version does not announce.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
'') ;;
*)
    sed -n '2,3s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
. scripts/tools.sh
ensure_cargo
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
npm=$(sed -n 's/^ *"version": "\(.*\)",/\1/p' crates/wgpu-optim-web/npm/package.json)
[ "$version" = "$npm" ] || { echo "the crates have version $version, the npm package has $npm" >&2 && exit 1; }
grep -q "^## \[$version\] - " CHANGELOG.md || { echo "CHANGELOG.md has no section \`## [$version] - DATE\`" >&2 && exit 1; }
[ -z "$(git status --porcelain)" ] || { echo "the tree has changes that are not committed" >&2 && exit 1; }

echo "Packages" >&2
cargo publish --locked --workspace --dry-run
echo "The minimum Rust" >&2
minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rustup toolchain install "$minimum" --profile minimal
cargo "+$minimum" check --locked -p wgpu-optim -p wgpu-optim-cli
echo "Documentation" >&2
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features -p wgpu-optim
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps -p wgpu-optim-burn -p wgpu-optim-cache -p wgpu-optim-cli
echo "The npm package" >&2
./scripts/web.sh
npm pack --dry-run "${CARGO_TARGET_DIR:-target}/web/package"
last=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)
if [ -n "$last" ]; then
    echo "Changes since $last" >&2
    cargo semver-checks --version >/dev/null 2>&1 || cargo install --locked cargo-semver-checks
    cargo semver-checks --baseline-rev "$last" -p wgpu-optim
else
    echo "There is no tag yet: nothing to compare the API with." >&2
fi
echo "wgpu-optim $version can be released." >&2
