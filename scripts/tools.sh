# Makes sure that what the tests and the browser's part need is there. Sourced by the other scripts.
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

has_opengl() {
    PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null | grep 'libEGL\.so\.1' >/dev/null
}

ensure_opengl() {
    has_opengl && return 0
    command -v apt-get >/dev/null 2>&1 || return 1
    echo "Installing OpenGL (libegl1 libgl1-mesa-dri)." >&2
    apt_install libegl1 libgl1-mesa-dri >&2 && has_opengl
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
