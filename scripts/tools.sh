# Makes sure that the tools for the tests and the web package are installed. Sourced by the other scripts.
. scripts/adapter.sh

ensure_compilers() {
    command -v spirv-val >/dev/null 2>&1 && command -v glslangValidator >/dev/null 2>&1 && return 0
    if command -v apt-get >/dev/null 2>&1; then
        echo "Installing spirv-val and glslangValidator (spirv-tools glslang-tools)." >&2
        apt_install spirv-tools glslang-tools >&2 && return 0
    fi
    echo "spirv-val and glslangValidator are missing: install SPIRV-Tools and glslang" >&2
    return 1
}

# Sets DXC_LIBRARY to DirectX's shader compiler, which a Python package brings along.
# Python's package installer.
ensure_pip() {
    if ! python3 -m pip --version >/dev/null 2>&1; then
        command -v apt-get >/dev/null 2>&1 || return 1
        echo "Installing Python's package installer (python3-pip)." >&2
        apt_install python3-pip python3-setuptools >&2 || return 1
    fi
}

# An interpreter with wgpu-py, for the test of docs/program.md: WGPU_OPTIM_PYTHON, and where it finds wgpu-py.
ensure_wgpu_py() {
    if [ -z "${WGPU_OPTIM_PYTHON:-}" ]; then
        local folder=${CARGO_TARGET_DIR:-$PWD/target}/python
        if ! PYTHONPATH=$folder python3 -c 'import wgpu' >/dev/null 2>&1; then
            ensure_pip || return 1
            echo "Fetching wgpu-py." >&2
            python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --target "$folder" wgpu==0.32.0 >&2 || return 1
        fi
        WGPU_OPTIM_PYTHON=$(command -v python3)
        export PYTHONPATH=$folder
    fi
    export WGPU_OPTIM_PYTHON
}

ensure_dxc() {
    if [ -z "${DXC_LIBRARY:-}" ]; then
        [ "$(uname -sm)" = "Linux x86_64" ] || return 1
        local folder=${CARGO_TARGET_DIR:-$PWD/target}/dxc
        DXC_LIBRARY=$folder/libdxcompiler.so
        if [ ! -e "$DXC_LIBRARY" ]; then
            ensure_pip || return 1
            echo "Fetching DirectX's shader compiler." >&2
            mkdir -p "$folder"
            echo "compushady==0.17.5 --hash=sha256:5052caf9e955d8e7a48e22f536e82b44b72e83af46e824a9e99157c7809de691" >"$folder/requirements.txt"
            python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary compushady --require-hashes \
                --dest "$folder" --requirement "$folder/requirements.txt" >&2 || return 1
            tar -xzf "$folder/compushady-0.17.5.tar.gz" -C "$folder" --strip-components=3 \
                compushady-0.17.5/compushady/backends/libdxcompiler_x86_64.so.3.7 || return 1
            rm "$folder/compushady-0.17.5.tar.gz"
            mv "$folder/libdxcompiler_x86_64.so.3.7" "$DXC_LIBRARY"
        fi
    fi
    export DXC_LIBRARY
}

has_validation() {
    local manifest
    for manifest in /usr/share/vulkan/explicit_layer.d /usr/local/share/vulkan/explicit_layer.d /etc/vulkan/explicit_layer.d; do
        [ ! -e "$manifest/VkLayer_khronos_validation.json" ] || return 0
    done
    return 1
}

ensure_validation() {
    has_validation && return 0
    command -v apt-get >/dev/null 2>&1 || return 1
    echo "Installing Vulkan's validation layers (vulkan-validationlayers)." >&2
    apt_install vulkan-validationlayers >&2 && has_validation
}

has_opengl() {
    PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null | grep 'libEGL\.so\.1' >/dev/null
}

ensure_opengl() {
    has_opengl && return 0
    command -v apt-get >/dev/null 2>&1 || return 1
    echo "Installing OpenGL (libegl1 libgl1-mesa-dri)." >&2
    apt_install libegl1 libgl1-mesa-dri >&2 && has_opengl
}

ensure_cargo_fuzz() {
    # libFuzzer is C++.
    command -v c++ >/dev/null 2>&1 || { command -v apt-get >/dev/null 2>&1 && apt_install g++ >&2; } || return 1
    cargo fuzz --version >/dev/null 2>&1 && return 0
    echo "Installing cargo-fuzz." >&2
    cargo install --locked --quiet --debug cargo-fuzz@0.13.2
}

ensure_cargo_mutants() {
    cargo mutants --version >/dev/null 2>&1 && return 0
    echo "Installing cargo-mutants." >&2
    cargo install --locked --quiet --debug cargo-mutants@27.1.0
}

ensure_wasm_target() {
    # Where Rust does not come from rustup, the target may be there all the same.
    [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ] && return 0
    command -v rustup >/dev/null 2>&1 && rustup target add wasm32-unknown-unknown && return 0
    echo "Rust's target wasm32-unknown-unknown is missing: rustup target add wasm32-unknown-unknown" >&2
    return 1
}

has_node() {
    command -v npm >/dev/null 2>&1 && [ "$(node --version | sed 's/^v\([0-9]*\).*/\1/')" -ge 20 ]
}

ensure_node() {
    has_node && return 0
    if ! command -v node >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1; then
        echo "Node.js is missing: installing it (nodejs npm)." >&2
        apt_install nodejs npm >&2 && has_node && return 0
    fi
    # Distributions have old ones, which can fetch a new one.
    if [ "$(uname -s)" = Linux ] && command -v npm >/dev/null 2>&1; then
        local folder=${CARGO_TARGET_DIR:-$PWD/target}/node
        if [ ! -e "$folder/node_modules/.bin/node" ]; then
            echo "Node.js is older than 20: fetching a newer one." >&2
            npm install --prefix "$folder" --loglevel=error --no-audit --no-fund node@22 npm@10 >&2 || return 1
        fi
        export PATH="$folder/node_modules/.bin:$PATH"
        has_node && return 0
    fi
    echo "Node.js 20 or newer is missing: https://nodejs.org" >&2
    return 1
}

# Sets CHROMIUM to a browser with WebGPU.
ensure_chromium() {
    local name
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable \
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" \
        "/c/Program Files/Google/Chrome/Application/chrome.exe"; do
        if [ -n "$name" ] && CHROMIUM=$(command -v "$name"); then
            export CHROMIUM
            return 0
        fi
    done
    if command -v apt-get >/dev/null 2>&1; then
        echo "Chromium is missing: installing it (chromium)." >&2
        apt_install chromium >&2 && CHROMIUM=$(command -v chromium) && export CHROMIUM && return 0
    fi
    echo "Chromium is missing: install Chromium or Chrome, or name one in CHROMIUM" >&2
    return 1
}
