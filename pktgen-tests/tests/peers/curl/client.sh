#!/bin/sh
# A direct mTLS client: curl calls a gateway with an SVID of its own.
#
#     client.sh URL CHAIN KEY ROOT BODY [GROUPS]
#
# Posts the file BODY, and prints who answered and what came back.
set -eu
url=$1 chain=$2 key=$3 root=$4 body=$5

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# Leaf and intermediates in $chain; $root stands instead of the system's roots.
names=$(curl --silent --show-error --fail --tlsv1.3 --cert "$chain" --key "$key" --cacert "$root" ${6:+--curves "$6"} \
  --max-time 20 --data-binary "@$body" --output "$answer" --write-out '%{certs}' "$url")

printf '%s\n' "$names" | sed -n 's/.*URI:\(spiffe:[^, ]*\).*/peer \1/p' | head -n 1
echo "body $(sha256sum <"$answer" | cut -d ' ' -f 1)"
echo "runtime $(curl --version | sed -n '1s/^\(curl [^ ]*\).*\(OpenSSL[^ ]*\).*/\1, \2/p')"
