#!/bin/bash
# Measures all paths of the bench in an emulated machine whose kernel has openvswitch
# and wireguard, for underlays of 1500 and of 9000: bench/results/vm.*, in about 20
# minutes. Each underlay has a machine's life to itself. Further flags are the bench's.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for mtu in 1500 9000; do
	mkdir "$out/$mtu"
	scripts/vm.sh -timeout 60m -limit 60m -out "$out/$mtu" -with bin/wireguard-go -program bin/bench -- \
		-weave bin/weave -wireguard bin/wireguard-go -emulated -short -mtu "$mtu" -out /out -name vm "$@"
done
bin/bench -draw "$out/1500/vm.json,$out/9000/vm.json" -out bench/results -name vm
