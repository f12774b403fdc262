#!/bin/bash
# Installs the system tools that the tests, the demo and the bench use, on Debian
# and Ubuntu, and says which. On other systems it only says what is missing. With the
# argument "bench" it adds what only the bench needs.
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin

# command and the Debian package that has it
needed=(
	'ip        iproute2'
	'bridge    iproute2'
	'iperf3    iperf3'
	'ping      iputils-ping'
	'tcpdump   tcpdump'
	'nft       nftables'
	'ethtool   ethtool'
	'dig       dnsutils'
	'sysctl    procps'
	'depmod    kmod'
	'qemu-system-x86_64 qemu-system-x86' # a kernel with modules that this one lacks
	'gcc       gcc libc6-dev' # for go test -race only; the product is built without cgo
)
if [[ ${1-} == bench ]]; then
	needed+=('rsvg-convert librsvg2-bin fonts-dejavu-core') # the plot as PNG
fi

packages=() commands=()
for row in "${needed[@]}"; do
	read -r cmd pkgs <<<"$row"
	command -v "$cmd" >/dev/null && continue
	commands+=("$cmd")
	for p in $pkgs; do
		[[ " ${packages[*]-} " == *" $p "* ]] || packages+=("$p")
	done
done

if [[ ${#packages[@]} -eq 0 ]]; then
	exit 0
fi
echo "deps: missing commands: ${commands[*]}"

if ! command -v apt-get >/dev/null; then
	echo "deps: this is not Debian or Ubuntu: please install what they call: ${packages[*]}" >&2
	exit 1
fi

sudo=()
if [[ $(id -u) -ne 0 ]]; then
	if ! command -v sudo >/dev/null; then
		echo "deps: not root and no sudo: please run: apt-get install ${packages[*]}" >&2
		exit 1
	fi
	sudo=(sudo)
fi

echo "deps: installing Debian packages: ${packages[*]}"
# debconf's frontend is set through env, because sudo drops the environment
apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq)
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends "${packages[@]}" >/dev/null
echo "deps: done"
