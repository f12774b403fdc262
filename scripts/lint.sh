#!/bin/bash
# go vet, gofmt, and staticcheck. With --quick, as in the test run, staticcheck
# is left out: it is a download of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}

echo "== gofmt"
unformatted=$(gofmt -l .)
if [[ -n $unformatted ]]; then
	printf 'not formatted (make fmt):\n%s\n' "$unformatted" >&2
	exit 1
fi

echo "== go vet"
$go vet ./...

[[ ${1-} == --quick ]] && exit 0
echo "== staticcheck"
$go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
