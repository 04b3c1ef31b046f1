#!/usr/bin/env bash
# What AMD's open compiler makes of the kernels, without hardware: registers, waves and spills, as a table in Markdown.
#
# Builds every pipeline with `wgpu-optim compile` on RADV's null device, for each family of GPUs. Takes Mesa 25 from Debian's backports, into a
# temporary folder. Needs Debian 12, its packages gcc and libvulkan-dev, and the network.
#
#   ./scripts/amd-stats.sh                            the elementwise recipes, for navi31, navi21 and vega20
#   FAMILIES=gfx1201 ./scripts/amd-stats.sh --recipes muon    other families; the arguments are those of `wgpu-optim compile`
#   MATMUL=large-tiles ./scripts/amd-stats.sh --recipes muon    another way to compute matrix products than tiles
#   MESA=installed FAMILIES="navi21 gfx1100" ./scripts/amd-stats.sh    the Mesa of this machine
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'
    exit
    ;;
esac
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
mesa=/usr
manifest=/usr/share/vulkan/icd.d/radeon_icd.x86_64.json
if [ "${MESA:-backports}" = backports ]; then
    mirror=$(sed -n 's/^URIs: //p' /etc/apt/sources.list.d/debian.sources | head -n 1)
    mkdir -p "$folder"/{lists/partial,cache/archives/partial,debs}
    for suite in bookworm bookworm-backports; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done >"$folder/sources.list"
    apt=(-o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder/cache" -o Dir::Etc::sourcelist="$folder/sources.list"
        -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root -q=2)
    apt-get "${apt[@]}" update >&2
    (cd "$folder/debs" && apt-get "${apt[@]}" download {mesa-vulkan-drivers,libdrm2,libdrm-amdgpu1}/bookworm-backports >&2)
    for package in "$folder"/debs/*.deb; do dpkg -x "$package" "$folder/mesa"; done
    mesa=$folder/mesa/usr
    manifest=$folder/radeon.json
    sed "s#\"library_path\": \"[^\"]*\"#\"library_path\": \"$mesa/lib/x86_64-linux-gnu/libvulkan_radeon.so\"#" \
        "$mesa/share/vulkan/icd.d/radeon_icd.json" >"$manifest"
fi
gcc -shared -fPIC -O1 -fvisibility=hidden -o "$folder/no_hardware.so" scripts/amd/no_hardware.c
cat >"$folder/no_hardware.json" <<LAYER
{"file_format_version": "1.1.0", "layer": {"name": "VK_LAYER_NO_HARDWARE", "type": "GLOBAL", "api_version": "1.3.0",
 "library_path": "./no_hardware.so", "implementation_version": "1", "description": "Devices without hardware"}}
LAYER
cargo build --quiet --locked -p wgpu-optim-cli
for family in ${FAMILIES:-navi31 navi21 vega20}; do
    env -u WGPU_ADAPTER_NAME LD_LIBRARY_PATH="$mesa/lib/x86_64-linux-gnu" VK_ICD_FILENAMES="$manifest" VK_LAYER_PATH="$folder" \
        VK_INSTANCE_LAYERS=VK_LAYER_NO_HARDWARE RADV_FORCE_FAMILY="$family" RADV_DEBUG=shaders,shaderstats MESA_SHADER_CACHE_DISABLE=1 \
        WGPU_BACKEND=vulkan "${CARGO_TARGET_DIR:-target}/debug/wgpu-optim" compile --shape gpu --matmul "${MATMUL:-tiles}" "$@" >"$folder/$family.txt" 2>&1 ||
        { cat "$folder/$family.txt" >&2 && exit 1; }
    python3 scripts/amd/table.py "$family" <"$folder/$family.txt"
done
