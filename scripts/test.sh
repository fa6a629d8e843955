#!/bin/sh
# The whole test suite: checks, unit tests, integration tests (real dockerd and runsc). All parts run even if an earlier one fails.
# The last line is `N passed, N failed`. A skipped or to-do test is a failure, and so is a suite in which nothing ran.
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root" || exit 1
PATH=$root/node_modules/.bin:$PATH
export PATH

passed=0
failed=0
# One failure that is no test's.
fault() {
  echo "test: $1" >&2
  failed=$((failed + 1))
}
finish() {
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
  exit
}

bin/ecluse doctor --fix --quiet --for-tests || {
  fault 'this machine lacks what the tests need; see above'
  finish
}
results=$(mktemp -d) || {
  fault 'there is no room for the results'
  finish
}
trap 'rm -rf "$results"' EXIT
trap 'exit 130' INT TERM

sh scripts/check.sh || fault 'the checks failed'

# Runs the tests of one vitest project and adds them up.
project() {
  file=$results/$1.json
  vitest run --project "$1" --allowOnly=false --reporter=default --reporter=json --outputFile.json="$file"
  exit_code=$?
  # A file that cannot be loaded has no tests that fail, but it has failed; and it counts once.
  counts=$(jq -r '
    [.testResults[].assertionResults[].status] as $all
    | [.testResults[] | select(.status == "failed" and all(.assertionResults[]; .status != "failed"))] as $files
    | ($all | map(select(. == "passed")) | length) as $passed
    | ($all | map(select(. == "failed")) | length) as $failed
    | "\($passed) \($failed) \(($all | length) - $passed - $failed) \($files | length)"' "$file") || {
    fault "the $1 tests ended without a result (exit code $exit_code)"
    return
  }
  # shellcheck disable=SC2086 # Four numbers, to be split.
  set -- "$1" $counts
  passed=$((passed + $2))
  failed=$((failed + $3 + $4 + $5))
  [ "$(($2 + $3))" -gt 0 ] || fault "no test of project $1 ran"
  [ "$4" -eq 0 ] || {
    echo "test: $4 $1 tests were skipped, which counts as failed:" >&2
    jq -r '.testResults[] | .name as $file | .assertionResults[]
      | select(.status != "passed" and .status != "failed") | "  \($file): \(.fullName)"' "$file" >&2
  }
  # An unhandled error outside of every test, for instance.
  [ "$exit_code" -eq 0 ] || [ "$(($3 + $5))" -gt 0 ] || fault "the $1 tests exited with code $exit_code though none failed"
}

project unit
project integration
finish
