#!/bin/bash
# Everything a change must pass, in the order in which failures are cheapest:
# format and vet, the race detector on the packages that have concurrency and are
# quick, then all tests; beside them those that need another kernel, in virtual machines.
# Tests that make network namespaces need root: when this is not root, test binaries
# run through sudo.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
export CGO_ENABLED=0

# Test binaries start other programs: keep PATH, which sudo would replace.
as_root=()
if [[ $(id -u) -ne 0 ]]; then
	as_root=(-exec "sudo -E env PATH=$PATH HOME=$HOME")
fi

# Packages whose tests build networks share one machine's kernel and want its
# processors to themselves; they are known by what they call.
netns_pattern='CLONE_NEWNET|vishvananda/netns"|"netns", *"add"|internal/(testnet|e2e/harness)"|/dev/net/tun|/run/netns'
netns_dirs=" $(grep -rlE --include='*_test.go' "$netns_pattern" . | xargs -r -n1 dirname | sort -u | tr '\n' ' ')"
module=$($go list -m)

# test FLAG... -- PACKAGE...: the quick packages side by side, then those with
# networks one by one.
run_tests() {
	local flags=() pure=() netns=() pkg dir status=0
	while [[ $1 != -- ]]; do
		flags+=("$1")
		shift
	done
	shift
	for pkg in "$@"; do
		dir=.${pkg#"$module"}
		if [[ $netns_dirs == *" $dir "* ]]; then netns+=("$pkg"); else pure+=("$pkg"); fi
	done
	if [[ ${#pure[@]} -gt 0 ]]; then
		$go test "${flags[@]}" "${as_root[@]}" "${pure[@]}" || status=1
	fi
	if [[ ${#netns[@]} -gt 0 ]]; then
		$go test "${flags[@]}" -p 1 "${as_root[@]}" "${netns[@]}" || status=1
	fi
	return $status
}

mapfile -t all < <($go list ./...)
# Not raced: what has no goroutine of its own, so that the detector has nothing to
# look at (the pure packages of layout_test.go, the bench's arithmetic), or builds
# the program without the detector (whole daemons).
not_raced='bench.*|demo|odp/proof|odp/ovs/wire|mesh/(topo|wire|dial|gossip|overlay)|ipam/(addr|ring|space|paxos)|nameserver/registry'
not_raced+='|crypto/(policy|handshake)|internal/(peer|vm.*|ether.*|testnet|e2e.*|daemon)|cmd/.*'
mapfile -t raced < <(printf '%s\n' "${all[@]}" | grep -vE "^$module(/($not_raced))?$")

mkdir -p bin
# Tests that want a kernel feature this machine lacks leave their names here, for the
# virtual machines to run. It is complete when it has its final name.
skipped=$PWD/bin/skipped
export WEAVE_SKIPPED=$skipped.part
rm -f "$skipped"
: >"$WEAVE_SKIPPED"

scripts/lint.sh --quick

# The clocks of the virtual machines count instructions, so that these may wait for
# everything else: they take what the tests with networks leave of the processors.
chrt --idle 0 scripts/vm.sh -quiet -limit 60m -list scripts/vm-tests.txt -must "$skipped" &>bin/vm.log &
machines=$!
trap 'kill "$machines" 2>/dev/null || :' EXIT

status=0
if [[ ${#raced[@]} -gt 0 ]]; then
	echo "== go test -race -short"
	CGO_ENABLED=1 run_tests -race -short -timeout 600s -- "${raced[@]}" || status=1
fi
echo "== go test"
run_tests -count=1 -timeout 1200s -- "${all[@]}" || status=1
mv "$WEAVE_SKIPPED" "$skipped"
echo "== tests in virtual machines"
wait "$machines" || status=1
cat bin/vm.log
exit "$status"
