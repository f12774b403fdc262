#!/bin/bash
# Measures the name server beside Debian's unbound and dnsmasq: the same zone, the same
# questions, one core for each server and another for dnsperf, in turns.
#
#   nameserver/dnsbench/bench.sh [names [seconds [rounds]]] > bench/results/dns.txt
#
# PRIO="chrt -f 1" helps on a machine that does other things meanwhile; it is the same for
# all servers and for dnsperf, and starves the rest for as long as this runs.
# Needs: go, dnsperf, unbound, dnsmasq (dnsmasq-base), taskset, two cores. Everything
# listens on loopback, on ports from 5301.
set -eu
names=${1:-10000} seconds=${2:-4} rounds=${3:-3} prio=${PRIO:-}
cd "$(dirname "$0")/../.."
export PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin
for tool in go dnsperf unbound dnsmasq taskset; do
	command -v $tool >/dev/null || { echo "bench.sh: $tool is missing: apt-get install dnsperf unbound dnsmasq-base" >&2; exit 1; }
done
dir=$(mktemp -d -p /dev/shm)
pids=()
trap 'for p in "${pids[@]}"; do kill $p 2>/dev/null || :; done; rm -rf "$dir"' EXIT

CGO_ENABLED=0 go build -o "$dir/dnsbench" ./nameserver/dnsbench
for kind in unbound dnsmasq queries negative; do "$dir/dnsbench" -names "$names" -print $kind >"$dir/$kind.zone"; done
cat >"$dir/unbound.conf" <<END
server:
  interface: 127.0.0.1@5302
  num-threads: 1
  do-daemonize: no
  username: ""
  chroot: ""
  pidfile: "$dir/unbound.pid"
  use-syslog: no
  logfile: "$dir/unbound.log"
  access-control: 127.0.0.0/8 allow
  local-zone: "weave.local." static
  include: "$dir/unbound.zone"
remote-control:
  control-enable: no
END
$prio taskset -c 0 "$dir/dnsbench" -listen 127.0.0.1:5301 -names "$names" 2>"$dir/weave.log" & pids+=($!)
$prio taskset -c 0 unbound -d -c "$dir/unbound.conf" 2>"$dir/unbound.err" & pids+=($!)
$prio taskset -c 0 dnsmasq -k -C /dev/null --port=5303 --listen-address=127.0.0.1 --bind-interfaces --no-resolv --no-hosts \
	--addn-hosts="$dir/dnsmasq.zone" --local=/weave.local/ --local-ttl=1 --user=root --pid-file="$dir/dnsmasq.pid" --cache-size=0 2>"$dir/dnsmasq.log" & pids+=($!)
servers=(weave unbound dnsmasq)
ask() { $prio taskset -c 1 dnsperf -s 127.0.0.1 -p $((5301 + $1)) -d "$dir/$2.zone" -T 1 -c 8 "${@:3}"; }
for i in 0 1 2; do
	for _ in $(seq 50); do
		ask $i queries -n 1 -q 1 -t 1 2>/dev/null | grep -q 'completed: *[1-9]' && break || sleep 0.2
	done
done

ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
# load SERVER MIX: "questions a second" "questions for each second of the server's CPU"
load() {
	local before after out
	before=$(ticks ${pids[$1]})
	out=$(ask $1 $2 -l "$seconds" -q 200)
	after=$(ticks ${pids[$1]})
	awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" '
		/Queries completed/ { n = $3 } /Queries per second/ { q = $4 }
		END { printf "%.0f %.0f\n", q, n * hz / t }' <<<"$out"
}
# delay SERVER RATE: "median p99" in microseconds
delay() {
	ask $1 queries -l 2 -q 200 -Q "$2" -v >"$dir/each" # a pipe would take the core away
	awk '/^> NOERROR/ { printf "%.0f\n", $NF * 1e6 }' "$dir/each" | sort -n |
		awk '{ v[NR] = $1 } END { print v[int(NR / 2) + 1], v[int(NR * 0.99) + 1] }'
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

for r in $(seq "$rounds"); do
	for mix in queries negative; do
		for i in 0 1 2; do echo "$mix $i $(load $i $mix)" >>"$dir/figures"; done
	done
done
echo "DNS answers from local data, $names names, one UDP worker; median of $rounds rounds of $seconds s, in turns."
echo "Server on one core, dnsperf on another; loopback; 200 questions under way from 8 sockets."
echo "machine: $(nproc) cores $(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo), Linux $(uname -r | cut -d- -f1)"
echo "load average while measuring: $(cut -d' ' -f1-3 /proc/loadavg); servers and dnsperf run with: ${prio:-nothing special}"
echo "unbound $(unbound -V | head -1); $(dnsmasq -v | head -1 | cut -d' ' -f1-3); $(dnsperf -h 2>&1 | grep -io 'version [0-9.]*' | head -1 | sed 's/^/dnsperf /')"
for mix in queries negative; do
	[ $mix = queries ] && echo && echo "A of a name that exists" || { echo && echo "AAAA of a name that has only an A (empty NOERROR)"; }
	printf '%-10s %12s %22s %8s' server 'q/s' 'q per CPU second' ratio
	[ $mix = queries ] && printf ' %24s' 'half load: p50, p99 µs'
	echo
	best=0
	for i in 1 2; do
		v=$(awk -v m=$mix -v i=$i '$1 == m && $2 == i { print $4 }' "$dir/figures" | median)
		[ "$v" -gt "$best" ] && best=$v
	done
	for i in 0 1 2; do
		q=$(awk -v m=$mix -v i=$i '$1 == m && $2 == i { print $3 }' "$dir/figures" | median)
		c=$(awk -v m=$mix -v i=$i '$1 == m && $2 == i { print $4 }' "$dir/figures" | median)
		printf '%-10s %12s %22s %8.2f' "${servers[$i]}" "$q" "$c" "$(awk -v a="$c" -v b="$best" 'BEGIN { print a / b }')"
		[ $mix = queries ] && printf ' %24s' "$(delay $i $((q / 2)))"
		echo
	done
done
echo
echo "ratio: questions per second of the server's CPU time, to the better of the other two."
