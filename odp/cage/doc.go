// Package cage is the kernel path that encrypts: a vxlan device that is a port of the
// bridge, and whose packets have no way out but a WireGuard device.
//
// Its one idea: a device's socket stays in the network namespace that made the device,
// wherever the device is. So the vxlan device's socket is in a namespace of its own, the
// cage, where there is nothing but the WireGuard device, whose socket in turn is the
// host's. What the bridge gives to the port cannot leave in clear, because there is no
// route on which it could; and nothing that the host receives reaches the vxlan device
// unless a peer's WireGuard sealed it.
//
//	host's namespace                          the cage
//	┌──────────────────────────────┐          ┌───────────────────────────────┐
//	│ containers ── bridge `weave` │  frames  │ vxlan's socket, UDP port 4789 │
//	│                  │           │          │   │                           │
//	│              weavecage ──────┼──────────┼───┘                           │
//	│               (vxlan)        │          │   │ route 0.0.0.0/0           │
//	│                              │  sealed  │   ▼                           │
//	│ underlay ◀─ UDP port of the ◀┼──────────┼─ weavewg (WireGuard)          │
//	│             WireGuard socket │          │   our address inside, /32     │
//	└──────────────────────────────┘          └───────────────────────────────┘
//
// Package keeper says when, and puts the device on the bridge; package vxdev makes it.
//
// # What it leaves in the kernel
//
//	/run/netns/weave-cage-N  the cage, N being the inode number of the host's namespace
//	weavewg                  in the cage: its key, port, and peers; MTU of the overlay + 50
//	weavecage                in the host: no learning, no default remote, don't fragment
//	self entries             of MACs, and of peers' probe MACs, with addresses inside
//
// All of it exists only while there are peers. What is not exactly as it should be is
// taken down, and then made anew: there is no state between.
//
// # Addresses inside
//
// The cage has its own address space. A peer's address is made of its name: the first
// four bytes of BLAKE2s-256 of "weave cage address v1" and the 6 bytes of the name, the
// first of them n replaced by 1 + n mod 126. IPv4, because it is 20 bytes shorter. Two
// peers of one host with the same address (one pair in 2 billion) cannot both have the
// path: the second gets a reason, and user space.
//
// # Packets
//
//	IPv4 20 or IPv6 40, UDP 8                     of the host
//	type 4, receiver 4, counter 8                 WireGuard; sealed from here on
//	  IPv4 20, UDP 8, VXLAN 8, Ethernet 14        inside
//	  inner packet, padded with zeros to a multiple of 16 that fits the MTU
//	tag 16                                        WireGuard
//
// overlay.InnerMTU counts them: 110 bytes on IPv4, 130 on IPv6. WireGuard's packets may
// be fragmented by routers on the way; not by us, as a path whose first link is too
// narrow is refused.
//
// # Keys
//
// A daemon's static key is made by Open, or taken over from the kernel with the rest;
// it is stored nowhere else. Its public half is the offer's data (OfferData), and so
// part of the transcript of an authenticated control connection. Each pair of peers has a
// pre-shared key made of the control connection's secret. Session keys are the kernel's:
// it makes new ones every two minutes. A new pre-shared key is used from the next such
// exchange on, and breaks nothing that is on its way.
//
// An endpoint that the kernel has learned from authenticated packets is better than what
// the control connection says: it is set when a peer is new or said to be elsewhere than
// before.
//
// # What it protects from
//
// Somebody on the underlay sees WireGuard's packets, their sizes and times; can drop,
// and not read, forge, or repeat. A peer can send with its own address inside only
// (AllowedIPs is that one address), so that no peer can pose as another towards the
// vxlan device; what MACs it may claim is up to the switch. A peer that was removed is
// unknown to WireGuard at once. A dead daemon leaves the path as it was, sealed. Root on
// the host can do what it likes.
//
// # Adoption
//
// A new Backend with Config.Adopt takes over cage, key, sessions and entries: nothing is
// lost. Peers that nobody asked for stay until Disown.
//
// # Concurrency
//
// As package keeper says: the driver is called with its mutex held. The cage is entered
// by a borrowed thread for each visit, and no descriptor of it is kept: where its name is
// removed it ends, and all that is in it.
package cage
