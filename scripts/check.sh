#!/bin/sh
# Everything about the sources that needs no running program: types, lint, formatting, unused code. Stops at the first fault.
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root" || exit 1
PATH=$root/node_modules/.bin:$PATH
export PATH

step() {
  name=$1
  shift
  echo "check: $name"
  "$@" || {
    echo "check: $name failed (run it alone with: npx $*)" >&2
    exit 1
  }
}

step types tsc -p .
step lint oxlint --type-aware -c .oxlintrc.json
step format oxfmt --check
step unused knip --no-progress
