#!/bin/bash
# Runs tests in a virtual machine with a kernel that has openvswitch, wireguard, netem,
# dummy and a clock of its own, which this machine's kernel may lack. Fails unless every
# test that was asked for ran and passed.
#
#   scripts/vm.sh ./odp/ovs [-run PATTERN]            the tests of a package (or more)
#   scripts/vm.sh -without openvswitch ./odp/ovs      the same where a module is missing
#   scripts/vm.sh -quiet -list scripts/vm-tests.txt   all of them, as in make test
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
export PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin CGO_ENABLED=0

scripts/deps.sh
kernel=$(scripts/vm-kernel.sh)
$go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(git describe --tags --always --dirty 2>/dev/null || echo dev)" -o bin/weave-vm ./cmd/weave
$go build -trimpath -buildvcs=false -ldflags '-s -w' -o bin/vmrun ./internal/vm/vmrun
exec bin/vmrun -kernel "$kernel" -weave bin/weave-vm "$@"
