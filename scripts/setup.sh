#!/bin/sh
# Brings a fresh machine to the point where `ecluse up --demo` and the tests run: npm packages first (they bring Node 26),
# then the checks of `ecluse doctor`, mending what is missing; `--for-tests` adds what only the tests need. Silent where nothing is missing. Safe to run again.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"

stamp=node_modules/.ecluse-lock-sha256
want=$(sha256sum package-lock.json | cut -d' ' -f1)
if ! [ -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
  echo "setup: installing npm packages"
  # Not `npm ci`: npm 11 leaves optional packages of other platforms out of the lock and then refuses it.
  npm install --no-save --no-audit --no-fund --loglevel=error || {
    echo "setup: npm install failed; see its message above, then run: npm start" >&2
    exit 1
  }
  printf '%s' "$want" >"$stamp"
fi
exec bin/ecluse doctor --fix --quiet "$@"
