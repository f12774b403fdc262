#!/bin/bash
# Runs every fuzz target of the tree, one after the other, FUZZTIME each.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}

found=0
while IFS=: read -r file line; do
	name=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/' <<<"$line")
	echo "== $name ($(dirname "$file"))"
	$go test -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-30s}" "$(dirname "$file")"
	found=$((found + 1))
done < <(grep -rE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*\(f \*testing\.F\)' . | sort)
echo "$found fuzz targets ran"
[[ $found -gt 0 ]]
