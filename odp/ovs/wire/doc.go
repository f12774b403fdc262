// Package wire has the messages of the Open vSwitch kernel datapath: what goes in and
// out of its four generic netlink families.
//
// Its one idea: a message is a value; Append writes it as the kernel takes it, Parse
// reads it as the kernel writes it, and both are bytes in, bytes out. Package ovs sends
// them.
//
// # Wire format
//
// The source is the kernel's include/uapi/linux/openvswitch.h; a test compares every
// number here with that header. Behind the netlink and generic netlink headers each
// message begins with struct ovs_header, then has attributes (struct nlattr: length and
// type, 16 bits each, padded to 4 bytes; integers in the host's order unless said
// otherwise):
//
//	0   4  ifindex of the datapath, 0 where its name tells which
//
//	ovs_datapath (version 2)
//	  1 NAME          string         5 USER_FEATURES  u32, Feature bits
//	  2 UPCALL_PID    u32            8 PER_CPU_PIDS   array of u32
//	  3 STATS         4 u64: hit, missed, lost, flows
//
//	ovs_vport (version 1)
//	  1 PORT_NO       u32            5 UPCALL_PID     array of u32
//	  2 TYPE          u32            6 STATS          8 u64
//	  3 NAME          string
//	  4 OPTIONS       tunnels: 1 DST_PORT u16
//
//	ovs_flow (version 1)
//	  1 KEY           attributes of a key        7 MASK        as KEY
//	  2 ACTIONS       actions in order           9 UFID        1 to 16 bytes
//	  3 STATS         2 u64: packets, bytes     10 UFID_FLAGS  u32
//	  5 USED          u64, ms of the monotonic clock
//
//	ovs_packet (version 1)
//	  1 PACKET        the frame                  3 ACTIONS     as above
//	  2 KEY           as above                   4 USERDATA    bytes
//
//	key
//	  1 ENCAP         key within a VLAN tag      5 VLAN        be16 TCI
//	  3 IN_PORT       u32                        6 ETHERTYPE   be16
//	  4 ETHERNET      source, destination       16 TUNNEL      attributes of a tunnel
//
//	tunnel
//	  0 ID            be64                       6 CSUM        flag
//	  1 IPV4_SRC      be32                       9 TP_SRC      be16
//	  2 IPV4_DST      be32                      10 TP_DST      be16
//	  3 TOS           u8                        12 IPV6_SRC    16 bytes
//	  4 TTL           u8                        13 IPV6_DST    16 bytes
//	  5 DONT_FRAGMENT flag
//
//	actions
//	  1 OUTPUT        u32 port                   3 SET         one attribute of a key
//	  2 USERSPACE     1 PID u32, 2 USERDATA bytes
//
// A key that the kernel tells of has many more attributes (IPv4, TCP …): Parse skips
// what it does not know, and keeps the raw bytes, since the kernel wants its own words
// back when a packet is executed.
//
// # Errors
//
// All parsers fail with ErrMessage on what is cut off or of a wrong length, and never
// panic.
package wire
