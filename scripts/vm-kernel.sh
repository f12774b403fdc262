#!/bin/bash
# Gets a Linux kernel that has the modules this machine's may lack (openvswitch,
# wireguard, netem, dummy) and prints the directory it is in: Debian's kernel for
# clouds, unpacked from its package and not installed. Found once, it is kept in the
# cache, which may be removed at any time.
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
cache=${WEAVE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/weave}/kernel
meta=linux-image-cloud-amd64

say() { echo "vm-kernel: $*" >&2; }

# whole DIR: what was unpacked there is all there and unchanged.
whole() { [[ -f $1/sums ]] && (cd "$1" && sha256sum --quiet --check sums) >/dev/null 2>&1; }

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

for dir in "$cache"/linux-*; do
	if whole "$dir"; then
		echo "$dir"
		exit 0
	fi
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
	say "this is not Debian: please unpack its package $meta into $cache/linux-VERSION (see $0)"
	exit 1
fi
if [[ $(dpkg --print-architecture) != amd64 ]]; then
	say "only amd64 machines run these tests"
	exit 1
fi

sudo=()
[[ $(id -u) -eq 0 ]] || sudo=(sudo)
image() { apt-cache depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' | head -n1; }
package=$(image)
if [[ -z $package ]]; then
	"${sudo[@]}" apt-get -qq update >&2
	package=$(image)
fi
if [[ -z $package ]]; then
	say "no package $meta in this machine's sources"
	exit 1
fi

work=$(mktemp -d "$cache/.unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT
fetch() { (cd "$work" && apt-get -qq -o APT::Sandbox::User= download "$package" >&2); }
say "fetching Debian package $package"
if ! fetch; then # the lists may be older than the archive
	"${sudo[@]}" apt-get -qq update >&2
	package=$(image)
	fetch
fi
dpkg-deb -x "$work"/*.deb "$work/deb"

# Only what has to do with networks and what that needs.
version=${package#linux-image-}
modules=lib/modules/$version
out=$work/out
mkdir -p "$out/$modules/kernel/drivers" "$out/$modules/kernel/arch/x86"
cp "$work/deb/boot/vmlinuz-$version" "$out/vmlinuz"
cd "$work/deb/$modules"
cp modules.* "$out/$modules/"
cp -r kernel/{net,lib,crypto} "$out/$modules/kernel/"
cp -r kernel/arch/x86/crypto "$out/$modules/kernel/arch/x86/"
cp -r kernel/drivers/net "$out/$modules/kernel/drivers/"
cd "$out/$modules/kernel"
rm -rf net/{sunrpc,ceph,tipc,sctp,smc,rds,bluetooth,vmw_vsock} drivers/net/{ethernet,hyperv,wwan,xen-*}
cd "$out"
depmod -b "$out" "$version" 2>/dev/null
find . -type f ! -name sums -print0 | sort -z | xargs -0 sha256sum >sums
rm -rf "$cache/linux-$version"
mv "$out" "$cache/linux-$version"
echo "$cache/linux-$version"
