#!/bin/bash
# Runs the simulation of address allocation for a range of seeds, in pieces, and
# keeps a ledger of the pieces that are done: it may be stopped at any time, goes
# on where it was, and several may share a range (each its own SEEDS). A piece
# counts for the sources of ipam that it ran with; when these change, it is run
# again.
#
#   SEEDS=1-1000000 WORKERS=2 PIECE=5000 scripts/campaign-ipam.sh
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
seeds=${SEEDS:-1-1000000}
piece=${PIECE:-5000}
workers=${WORKERS:-$(nproc)}
first=${seeds%-*} last=${seeds#*-}
out=${OUT:-bench/out}
ledger=$out/ipam-campaign.txt
mkdir -p "$out"
touch "$ledger"

sources=$(git ls-files 'ipam/**.go' | xargs cat | sha256sum | cut -c1-12)
bin=$out/ipam-$sources.test
[[ -x $bin ]] || CGO_ENABLED=0 $go test -c -o "$bin" ./ipam

failed=0
for ((from = first; from <= last; from += piece)); do
	n=$((from + piece - 1 <= last ? piece : last - from + 1))
	to=$((from + n - 1))
	if grep -q "^$sources seeds $from-$to: ok" "$ledger"; then
		continue
	fi
	start=$SECONDS
	log=$(mktemp)
	if GOMAXPROCS=$workers "$bin" -test.run '^TestSimulation$' -test.timeout 24h -test.v \
		-seed="$from" -schedules="$n" -workers="$workers" >"$log" 2>&1; then
		echo "$sources seeds $from-$to: ok in $((SECONDS - start)) s, $(grep -o 'map\[.*\]' "$log")" | tee -a "$ledger"
	else
		failed=1
		echo "$sources seeds $from-$to: FAILED in $((SECONDS - start)) s" | tee -a "$ledger"
		grep -A3 -E 'seed [0-9]+:|panic' "$log" | tee -a "$ledger"
	fi
	rm -f "$log"
done

echo "== sources $sources"
awk -v s="$sources" '$1 == s && $2 == "seeds" {
	split($3, r, /[-:]/); n = r[2] - r[1] + 1
	if ($4 == "ok") ok += n; else bad += n
} END { printf "%d schedules in pieces without a failure, %d in pieces with one\n", ok, bad }' "$ledger"
exit $failed
