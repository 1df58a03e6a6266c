#!/usr/bin/env bash
# Builds one commit twice, each time from nothing and in a folder of another name, as the images are built (profile `dist`), and
# says whether both gave the same bytes. Usage: deploy/supply/reproduce.sh [SERVICE] [COMMIT]
# SERVICE: edge, chat, embedding, content-safety or standalone. Exit status 1: the two differ.
set -euo pipefail
cd "$(dirname "$0")/../.."

package=${1:-edge}
# Resolved once: the branch may go on while this builds.
commit=$(git rev-parse --short "${2:-HEAD}")
binary=${package/standalone/koine}
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$commit")
export SOURCE_DATE_EPOCH
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

for folder in "$scratch/a" "$scratch/another/folder"; do
  mkdir -p "$folder"
  git archive "$commit" | tar -x -C "$folder"
  # The source counts as /src, where the images have it: for rustc, and for the C and C++ that build scripts compile.
  (cd "$folder" && env CARGO_TARGET_DIR=target RUSTFLAGS="--remap-path-prefix=$folder=/src" \
    CFLAGS="-ffile-prefix-map=$folder=/src" CXXFLAGS="-ffile-prefix-map=$folder=/src" \
    cargo build --profile dist --locked -q -p "$package")
  mv "$folder/target/dist/$binary" "$scratch/$(basename "$folder").bin"
  rm -rf "$folder"
done

sha256sum "$scratch"/*.bin | sed "s#$scratch/##"
if cmp "$scratch/a.bin" "$scratch/folder.bin"; then
  echo "$package: two builds of $commit, one binary"
else
  echo "$package: two builds of $commit differ" >&2
  exit 1
fi
