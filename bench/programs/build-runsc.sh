#!/bin/sh
# Builds a current gVisor from the Go module proxy, for benches and tests that compare it with Debian's: FOLDER/runsc. Some minutes on two cores.
#
# Usage: sh bench/programs/build-runsc.sh FOLDER; afterwards PATH="FOLDER:$PATH" ecluse up …
#
# What the project itself publishes differs in two things: it has its filters for system calls compiled in, where this build computes them at every
# start and restore (0.1 s of processor time), and it comes with helper programs beside it that this build goes without.
set -eu

# The newest that the proxy had in November 2026. The proxy serves the branch `go` of the repository, in which generated files are checked in.
VERSION=v0.0.0-20260905035102-160fafc42237
# What it calls itself: a restore compares it word for word, and the node reads the day from it.
RELEASE=release-20260905.0

folder=${1:?"usage: sh $0 FOLDER"}
if ! command -v go >/dev/null; then
  echo "build-runsc: the program go is missing: install Go 1.26 or newer" >&2
  exit 1
fi
if "$folder/runsc" --version 2>/dev/null | grep -qxF "runsc version $RELEASE"; then
  echo "build-runsc: $folder/runsc is there"
  exit 0
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
printf 'module runscbuild\ngo 1.26\n' >go.mod
if ! go get "gvisor.dev/gvisor/runsc@$VERSION" 2>get.log; then
  tail -n 3 get.log >&2
  echo "build-runsc: the module gvisor.dev/gvisor $VERSION could not be had: the Go module proxy does not answer, or no longer has it (see: go env GOPROXY)" >&2
  exit 1
fi
CGO_ENABLED=0 nice go build -trimpath -ldflags "-s -w -X gvisor.dev/gvisor/runsc/version.version=$RELEASE" -o "$folder/runsc" gvisor.dev/gvisor/runsc
"$folder/runsc" --version
