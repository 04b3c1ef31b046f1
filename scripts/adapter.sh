# Makes sure that wgpu finds a GPU adapter, software or real. Sourced by the other scripts.
#
# Without a Vulkan driver, it installs Mesa's software driver (lavapipe) with apt. Without apt, it prints what to install.

# EGL complains at every start where no session has set this.
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"

has_adapter() {
    case "$(uname -s)" in
    Darwin | MINGW* | MSYS* | CYGWIN*) return 0 ;; # Metal and DirectX 12 come with the system
    esac
    # A Vulkan driver is a manifest; its loader is a library.
    local manifests=("${VK_ICD_FILENAMES:-}" "${VK_DRIVER_FILES:-}" /usr/share/vulkan/icd.d/*.json
        /usr/local/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json)
    local manifest
    # Debian keeps ldconfig out of the path of ordinary users; grep -q would end the pipe early, which pipefail minds.
    PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null | grep 'libvulkan\.so\.1' >/dev/null || return 1
    for manifest in "${manifests[@]}"; do
        if [ -n "$manifest" ] && [ -e "${manifest%%:*}" ]; then
            return 0
        fi
    done
    return 1
}

apt_install() {
    local run=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            echo "Run this as root: apt-get install $*" >&2
            return 1
        fi
        run=(sudo)
    fi
    "${run[@]}" apt-get update -qq || return
    "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# Rust, and the C compiler that it links programs with.
ensure_cargo() {
    if ! command -v cargo >/dev/null 2>&1; then
        echo "Rust is missing: install it from https://rustup.rs" >&2
        return 1
    fi
    local needed=1.95 found
    found=$(rustc --version | sed 's/^rustc \([0-9]*\.[0-9]*\).*/\1/')
    if [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -n 1)" != "$needed" ]; then
        echo "Rust $needed or newer is needed, and this is Rust $found: run \`rustup update\`, or install Rust from https://rustup.rs" >&2
        return 1
    fi
    case "$(uname -s)" in
    MINGW* | MSYS* | CYGWIN*) return 0 ;; # Rust's installer asks for one
    esac
    command -v cc >/dev/null 2>&1 && return 0
    if command -v apt-get >/dev/null 2>&1; then
        echo "A C compiler is missing, which Rust links programs with: installing gcc (gcc libc6-dev)." >&2
        apt_install gcc libc6-dev >&2 && command -v cc >/dev/null 2>&1 && return 0
    fi
    echo "A C compiler is missing, which Rust links programs with (Fedora: dnf install gcc; macOS: xcode-select --install)." >&2
    return 1
}

ensure_adapter() {
    has_adapter && return 0
    if command -v apt-get >/dev/null 2>&1; then
        echo "No Vulkan driver was found: installing Mesa's, with its software adapter (libvulkan1 mesa-vulkan-drivers)." >&2
        apt_install libvulkan1 mesa-vulkan-drivers >&2 && has_adapter && return 0
    fi
    cat >&2 <<'TEXT'
No GPU adapter was found. Install a Vulkan driver for your GPU, or Mesa's software one:
  Debian, Ubuntu:  apt-get install libvulkan1 mesa-vulkan-drivers
  Fedora:          dnf install vulkan-loader mesa-vulkan-drivers
  Arch:            pacman -S vulkan-icd-loader vulkan-swrast
TEXT
    return 1
}
