#!/usr/bin/env bash
# Installs what building and testing Sluice needs on Debian 12, beyond Rust, gcc and make.
# Run it as often as you like: it looks first, and installs only what is missing.
set -euo pipefail

build=(
  pkg-config libelf-dev zlib1g-dev libc6-dev  # libbpf, built from source and linked in
  clang                                       # compiles the steering program to BPF
  m4                                          # libxdp's build
)
run=(
  iproute2 util-linux   # namespaces, veth cables; nsenter
  ethtool               # offload switches of the cables
  nftables              # the wire that loses packets
  procps                # sysctl in namespaces
  curl openssl python3  # the demo's client and service, direct mTLS peers in the tests
)

say() { printf 'setup: %s\n' "$*" >&2; }

command -v cargo >/dev/null || {
  say "cargo is missing: install Rust 1.90 or newer (https://rustup.rs), then run this again"
  exit 1
}
# Its state, not its name: a removed package whose configuration stayed is known to dpkg too.
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
for package in "${build[@]}" "${run[@]}"; do
  installed "$package" || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  say "nothing is missing"
  exit 0
fi

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { say "needs root to install: ${missing[*]}"; exit 1; }
  as_root=(sudo)
fi
say "installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
say "done"
