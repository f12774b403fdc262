#!/bin/bash
# Three encrypted hosts on one machine: demo.sh [WEAVE-BINARY]
#
# Every host is a network namespace with a daemon of its own, started and used as
# on a real host. An underlay bridge in a fourth namespace joins them, and a tap
# on that bridge looks for clear text. Nothing is made outside these namespaces
# and one temporary directory; all of it goes at the end, also on Ctrl-C.
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
weave=$(readlink -f "${1:-$(dirname "$0")/../bin/weave}")
if [[ ! -x $weave ]]; then
	echo "demo: no program $weave: run make build" >&2
	exit 1
fi
if [[ $(id -u) -ne 0 ]]; then
	exec sudo -E "$(readlink -f "$0")" "$weave"
fi

unset "${!WEAVE_@}" # settings of a weave that the user runs
id=wvdemo$$
dir=$(mktemp -d "${TMPDIR:-/tmp}/weave-demo.XXXXXX")
hosts=(1 2 3)
under=$id-net # the underlay's namespace
taps=()       # process IDs of tcpdump
figures=()    # lines of the table at the end
host() { echo "$id-host$1"; }
work() { echo "$id-work$1"; }
overlay=() # the containers' addresses
overlay_ip() { echo "${overlay[$1]}"; }
underlay_ip() { echo "198.51.100.$1"; }

# --- tools ------------------------------------------------------------------

say() { printf '\n== %s\n' "$*"; }
fail() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

# enter NAMESPACE COMMAND... The shell waits for a job in the background, because a
# signal ends a wait at once, and a command in the foreground only after it is done.
enter() {
	ip netns exec "$@" &
	wait $!
}

# on N COMMAND... runs weave's command on host N.
on() {
	local n=$1
	shift
	enter "$(host "$n")" env WEAVE_RUN_DIR="$dir/host$n/run" WEAVE_STATE_DIR="$dir/host$n/state" "$weave" "$@"
}

# patiently SECONDS COMMAND... repeats a quiet command until it succeeds.
patiently() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@" &>/dev/null; do
		[[ $SECONDS -lt $deadline ]] || return 1
		sleep 0.1
	done
}

cleanup() {
	local status=$? ns n pid stops=()
	trap '' INT TERM HUP
	trap - EXIT ERR
	set +e
	if [[ $status -ne 0 && $status -lt 128 ]]; then # not after a signal
		for n in "${hosts[@]}"; do
			[[ -s $dir/host$n/run/weave.log ]] && sed "s/^/host$n: /" <(tail -n 15 "$dir/host$n/run/weave.log") >&2
		done
	fi
	for n in "${hosts[@]}"; do
		[[ -d $dir/host$n/run ]] || continue
		on "$n" stop --timeout 5s &>/dev/null &
		stops+=($!)
	done
	# Not for all jobs: a tap would be waited for forever.
	[[ ${#stops[@]} -gt 0 ]] && wait "${stops[@]}"
	# What is left in our namespaces is ours: nobody else knows their names.
	{
		for ns in $(ip netns list | awk '{print $1}' | grep "^$id-"); do
			for pid in $(ip netns pids "$ns"); do kill -9 "$pid"; done
		done
		wait
	} 2>/dev/null
	for ns in $(ip netns list | awk '{print $1}' | grep "^$id-"); do
		ip netns del "$ns"
	done
	rm -rf "$dir"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
trap 'echo "demo: failed in line $LINENO" >&2' ERR

# --- the machine room -------------------------------------------------------

build_underlay() {
	ip netns add "$under"
	ip -n "$under" link set lo up
	ip -n "$under" link add br0 type bridge
	ip -n "$under" link set br0 up
	local n
	for n in "${hosts[@]}"; do
		ip netns add "$(host "$n")"
		ip netns add "$(work "$n")"
		ip -n "$(host "$n")" link set lo up
		ip -n "$(work "$n")" link set lo up
		ip -n "$under" link add "port$n" type veth peer name eth0 netns "$(host "$n")"
		ip -n "$under" link set "port$n" master br0 up
		ip -n "$(host "$n")" addr add "$(underlay_ip "$n")/24" dev eth0
		ip -n "$(host "$n")" link set eth0 up
	done
}

# listen NAMESPACE DEVICE FILE writes all packets to a file, from when it returns.
listen() {
	ip netns exec "$1" tcpdump -i "$2" -s 0 -U --immediate-mode -Z root -w "$dir/$3.pcap" 2>"$dir/$3.err" &
	taps+=($!)
	patiently 5 grep -q 'listening on' "$dir/$3.err" || fail "tcpdump does not start: $(cat "$dir/$3.err")"
}
launch() {
	local n peers name
	# The file keeps the password out of every command line.
	(umask 077 && head -c 15 /dev/urandom | base64 >"$dir/password")
	peers=() # the same on all hosts, each host's own address included
	for n in "${hosts[@]}"; do peers+=("$(underlay_ip "$n")"); done
	for n in "${hosts[@]}"; do
		mkdir "$dir/host$n"
		# --name, because peers' names come from the machine, and this is one machine
		name=$(on "$n" launch --password-file "$dir/password" --name "::$n" --nickname "host$n" --no-fastdp "${peers[@]}")
		printf 'host%s# weave launch --password-file FILE %s\n%s\n' "$n" "${peers[*]}" "$name"
	done
}

attach() {
	local n
	for n in "${hosts[@]}"; do
		printf 'host%s# weave attach --name work%s netns:work%s\n' "$n" "$n" "$n"
		on "$n" attach --name "work$n" "netns:$(work "$n")" >"$dir/address"
		overlay[n]=$(<"$dir/address")
		overlay_ip "$n"
	done
}

connected() {
	local n
	for n in "${hosts[@]}"; do
		[[ $(on "$n" status connections | grep -c ' established .* encrypted ') -eq $((${#hosts[@]} - 1)) ]] || return 1
	done
}

# --- measurements -----------------------------------------------------------

figure() { figures+=("$(printf '  %-44s %12s' "$1" "$2")"); }

ping_pairs() {
	local a b out
	for a in "${hosts[@]}"; do
		for b in "${hosts[@]}"; do
			[[ $a -lt $b ]] || continue
			patiently 10 enter "$(work "$a")" ping -q -c1 -W1 "$(overlay_ip "$b")" || fail "work$a cannot reach work$b"
			enter "$(work "$a")" ping -q -c 50 -i 0.02 "$(overlay_ip "$b")" >"$dir/ping"
			out=$(awk -F/ '/^rtt|^round-trip/ {print $5}' "$dir/ping")
			grep 'packet loss' "$dir/ping" | sed "s/^/work$a to work$b: /"
			figure "ping work$a to work$b, average of 50" "$out ms"
		done
	done
}

# The marker fills ping's packets. The tap in front of work2 proves that the search
# would find it; the tap on the underlay is the one that counts.
look_for_clear_text() {
	local marker=weave-clear-text hex clear inside sealed
	hex=$(printf '%s' $marker | od -An -tx1 | tr -d ' \n')
	listen "$(work 2)" ethwe inside
	enter "$(work 1)" ping -q -c 10 -i 0.02 -s 1000 -p "$hex" "$(overlay_ip 2)" >"$dir/ping"
	sleep 0.3 # what the taps have seen gets to their files
	kill "${taps[@]}"
	wait "${taps[@]}" 2>/dev/null || true
	taps=()
	inside=$(grep -aoc $marker "$dir/inside.pcap" || true)
	clear=$(grep -aoc $marker "$dir/underlay.pcap" || true)
	sealed=$(tcpdump -nn -r "$dir/underlay.pcap" udp 2>/dev/null | wc -l)
	[[ $inside -gt 0 ]] || fail "the marker was not seen where it must be: the search is broken"
	[[ $sealed -gt 0 ]] || fail "no packets on the underlay: the tap is broken"
	[[ $clear -eq 0 ]] || fail "clear text on the underlay"
	printf 'a marker in ping packets: found in front of work2, never among %s UDP packets on the underlay\n' "$sealed"
	figure "underlay packets with the marker in clear" "0 of $sealed"
}

# throughput LABEL IPERF-FLAG...
throughput() {
	local label=$1 server
	shift
	ip netns exec "$(work 2)" iperf3 -s -1 >"$dir/iperf-server" 2>&1 &
	server=$!
	patiently 5 eval "ip netns exec $(work 2) ss -Hltn | grep -q :5201" || fail "iperf3 does not listen"
	enter "$(work 1)" iperf3 -c "$(overlay_ip 2)" -t 4 -O 1 -f g "$@" >"$dir/iperf"
	grep receiver "$dir/iperf" | tail -n 1
	figure "TCP $label" "$(grep receiver "$dir/iperf" | tail -n 1 | sed -E 's/.* ([0-9.]+) Gbits.*/\1/') Gbit/s"
	wait "$server" # else the next one may find the port taken
}

memory() {
	local pid
	pid=$(ip netns pids "$(host 1)" | head -n 1)
	figure "memory of host1's daemon" "$(awk '/^VmRSS/ {printf "%.0f", $2/1024}' "/proc/$pid/status") MiB"
}

# --- the show ---------------------------------------------------------------

cat <<'END'
work1 ─ host1 ─┐
work2 ─ host2 ─┼─ underlay
work3 ─ host3 ─┘      each a network namespace of its own, removed at the end
END

say "underlay"
build_underlay
listen "$under" br0 underlay
echo "three hosts on one bridge, and a tap on it"

say "launch"
launch
began=$(date +%s%N)
patiently 20 connected || {
	for n in "${hosts[@]}"; do on "$n" status connections || true; done
	fail "the hosts did not connect"
}
figure "all hosts connected after the last launch" "$((($(date +%s%N) - began) / 1000000)) ms"

say "attach"
attach

say "ping"
ping_pairs
look_for_clear_text

say "TCP, encrypted, work1 and work2"
throughput "work1 to work2, one stream"
throughput "work2 to work1, one stream" -R
memory

say "host1# weave status connections"
on 1 status connections

say "host1# weave status ipam"
on 1 status ipam

say "host1# weave dns-lookup work3"
on 1 dns-lookup work3

say "figures"
printf '%s\n' "${figures[@]}"
echo "  (all hosts, the load and this script share $(nproc) processors)"
