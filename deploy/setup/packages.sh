#!/usr/bin/env bash
# Installs what building and fetching need and this machine lacks, after saying what. Does nothing when all is there.
set -euo pipefail

missing=()
need() { # package, then a command that succeeds when it is there
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
has_libclang() { ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* 2>/dev/null | grep -q . ; }

need cmake cmake --version            # llama.cpp's build
need g++ g++ --version
need libclang-dev has_libclang        # its Rust bindings
need clang clang --version            # the headers that libclang reads
need python3-pip python3 -m pip --version    # fetches weights by package name
need redis-server redis-server --version    # shared limits, in the tests
need python3-venv python3 -c 'import ensurepip, venv'   # the SDK tests' environment

command -v cargo >/dev/null || { echo "cargo is missing: install a Rust toolchain first (rustup)" >&2; exit 1; }
[ ${#missing[@]} -eq 0 ] && exit 0

echo "This build needs packages that are not here: ${missing[*]}"
if ! command -v apt-get >/dev/null; then
  echo "Install them with this system's package manager and run make again." >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "Run as root: apt-get install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "Installing them: ${as_root[*]:-} apt-get install ${missing[*]}"
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
