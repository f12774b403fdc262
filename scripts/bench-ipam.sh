#!/bin/bash
# Measures the allocation of addresses and writes bench/results/ipam.txt: on the
# allocator with a real store, through the control socket of a real daemon, and the
# merge of large rings. Needs root; nothing else should run. About 15 s, and the
# builds before.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
out=${OUT:-bench/results/ipam.txt}
export CGO_ENABLED=0 WEAVE_BIN=$PWD/bin/weave
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

$go test -c -o "$tmp/ipam.test" ./ipam
$go test -c -o "$tmp/ring.test" ./ipam/ring
$go test -c -o "$tmp/e2e.test" ./internal/e2e/addresses

run() { # DIR TEST PATTERN BENCHTIME COUNT
	(cd "$1" && $first "$tmp/$2" -test.run xxx -test.bench "$3" -test.benchtime "$4" -test.count "$5") |
		sed -nE 's/^Benchmark/  /p' | tr '\t' ' ' | tr -s ' ' | sed 's/^ /  /'
}

{
	echo "Allocation of addresses. machine: $(nproc) cores $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)"
	echo "store on: $(df --output=fstype,source "${TMPDIR:-/tmp}" | tail -1 | tr -s ' '); $($go version | cut -d' ' -f3); sources $(git describe --always --dirty)"
	echo "load average before: $(cut -d' ' -f1-3 /proc/loadavg)"
	echo
	# These two take a second or so, before everything else that the machine does.
	first="chrt -f 1"
	echo "addresses on disk and acknowledged, 64 clients at once, one store transaction for many of them (chrt -f 1)"
	run ipam ipam.test 'Allocate64$' 10000x 3
	echo
	echo "a whole ring of 1000 peers, each of which gave half away, joined into one where none did (chrt -f 1)"
	run ipam/ring ring.test 'Merge1000Peers$' 300x 3
	echo
	first=
	echo "containers attached (address, interface, route), attached again (nothing to do) and detached,"
	echo "through the control socket of a daemon by 64 clients at once"
	run internal/e2e/addresses e2e.test 'Attach64$' 256x 1
	echo
	echo "load average after: $(cut -d' ' -f1-3 /proc/loadavg)"
} | tee "$tmp/result"
cp "$tmp/result" "$out"
