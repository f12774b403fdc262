package wire

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const headerPath = "/usr/include/linux/openvswitch.h"

// TestNumbers compares every number with the kernel's header, which the Debian package
// linux-libc-dev brings.
func TestNumbers(t *testing.T) {
	text, err := os.ReadFile(headerPath)
	if err != nil {
		t.Skipf("needs the kernel's header (Debian package linux-libc-dev): %v", err)
	}
	header := constants(string(text))
	for _, tt := range []struct {
		name string
		got  int
	}{
		{"OVS_DATAPATH_VERSION", DatapathVersion}, {"OVS_VPORT_VERSION", VportVersion},
		{"OVS_FLOW_VERSION", FlowVersion}, {"OVS_PACKET_VERSION", PacketVersion},
		{"OVS_DP_CMD_NEW", CmdNew}, {"OVS_DP_CMD_DEL", CmdDel}, {"OVS_DP_CMD_GET", CmdGet}, {"OVS_DP_CMD_SET", CmdSet},
		{"OVS_VPORT_CMD_NEW", CmdNew}, {"OVS_VPORT_CMD_DEL", CmdDel}, {"OVS_VPORT_CMD_GET", CmdGet}, {"OVS_VPORT_CMD_SET", CmdSet},
		{"OVS_FLOW_CMD_NEW", CmdNew}, {"OVS_FLOW_CMD_DEL", CmdDel}, {"OVS_FLOW_CMD_GET", CmdGet}, {"OVS_FLOW_CMD_SET", CmdSet},
		{"OVS_PACKET_CMD_MISS", PacketMiss}, {"OVS_PACKET_CMD_ACTION", PacketAction}, {"OVS_PACKET_CMD_EXECUTE", PacketExecute},
		{"OVS_DP_F_UNALIGNED", FeatureUnaligned}, {"OVS_DP_F_VPORT_PIDS", FeatureVportPIDs},
		{"OVS_DP_F_DISPATCH_UPCALL_PER_CPU", FeaturePerCPU},
		{"OVS_VPORT_TYPE_NETDEV", VportNetdev}, {"OVS_VPORT_TYPE_INTERNAL", VportInternal}, {"OVS_VPORT_TYPE_VXLAN", VportVXLAN},
		{"OVS_UFID_F_OMIT_KEY", OmitKey}, {"OVS_UFID_F_OMIT_MASK", OmitMask}, {"OVS_UFID_F_OMIT_ACTIONS", OmitActions},
		{"OVS_DP_ATTR_NAME", dpName}, {"OVS_DP_ATTR_UPCALL_PID", dpUpcallPID}, {"OVS_DP_ATTR_STATS", dpStats},
		{"OVS_DP_ATTR_USER_FEATURES", dpUserFeatures}, {"OVS_DP_ATTR_PER_CPU_PIDS", dpPerCPUPIDs},
		{"OVS_VPORT_ATTR_PORT_NO", vportPortNo}, {"OVS_VPORT_ATTR_TYPE", vportType}, {"OVS_VPORT_ATTR_NAME", vportName},
		{"OVS_VPORT_ATTR_OPTIONS", vportOptions}, {"OVS_VPORT_ATTR_UPCALL_PID", vportUpcallPID}, {"OVS_VPORT_ATTR_STATS", vportStats},
		{"OVS_TUNNEL_ATTR_DST_PORT", tunnelOptDstPort},
		{"OVS_FLOW_ATTR_KEY", flowKey}, {"OVS_FLOW_ATTR_ACTIONS", flowActions}, {"OVS_FLOW_ATTR_STATS", flowStats},
		{"OVS_FLOW_ATTR_USED", flowUsed}, {"OVS_FLOW_ATTR_CLEAR", flowClear}, {"OVS_FLOW_ATTR_MASK", flowMask},
		{"OVS_FLOW_ATTR_PROBE", flowProbe}, {"OVS_FLOW_ATTR_UFID", flowUFID}, {"OVS_FLOW_ATTR_UFID_FLAGS", flowUFIDFlags},
		{"OVS_PACKET_ATTR_PACKET", packetPacket}, {"OVS_PACKET_ATTR_KEY", packetKey}, {"OVS_PACKET_ATTR_ACTIONS", packetActions},
		{"OVS_PACKET_ATTR_USERDATA", packetUserdata},
		{"OVS_KEY_ATTR_ENCAP", keyEncap}, {"OVS_KEY_ATTR_IN_PORT", keyInPort}, {"OVS_KEY_ATTR_ETHERNET", keyEthernet},
		{"OVS_KEY_ATTR_VLAN", keyVLAN}, {"OVS_KEY_ATTR_ETHERTYPE", keyEtherType}, {"OVS_KEY_ATTR_TUNNEL", keyTunnel},
		{"OVS_TUNNEL_KEY_ATTR_ID", tunID}, {"OVS_TUNNEL_KEY_ATTR_IPV4_SRC", tunSrc4}, {"OVS_TUNNEL_KEY_ATTR_IPV4_DST", tunDst4},
		{"OVS_TUNNEL_KEY_ATTR_TOS", tunTOS}, {"OVS_TUNNEL_KEY_ATTR_TTL", tunTTL}, {"OVS_TUNNEL_KEY_ATTR_DONT_FRAGMENT", tunDF},
		{"OVS_TUNNEL_KEY_ATTR_CSUM", tunCSum}, {"OVS_TUNNEL_KEY_ATTR_TP_SRC", tunTPSrc}, {"OVS_TUNNEL_KEY_ATTR_TP_DST", tunTPDst},
		{"OVS_TUNNEL_KEY_ATTR_IPV6_SRC", tunSrc6}, {"OVS_TUNNEL_KEY_ATTR_IPV6_DST", tunDst6},
		{"OVS_ACTION_ATTR_OUTPUT", actionOutput}, {"OVS_ACTION_ATTR_USERSPACE", actionUserspace}, {"OVS_ACTION_ATTR_SET", actionSet},
		{"OVS_USERSPACE_ATTR_PID", userspacePID}, {"OVS_USERSPACE_ATTR_USERDATA", userspaceUserdata},
	} {
		if want, ok := header[tt.name]; !ok || tt.got != want {
			t.Errorf("%s: got %d, want %d (in the header: %t)", tt.name, tt.got, want, ok)
		}
	}
	for name, got := range map[string]string{
		"OVS_DATAPATH_FAMILY": DatapathFamily, "OVS_VPORT_FAMILY": VportFamily,
		"OVS_FLOW_FAMILY": FlowFamily, "OVS_PACKET_FAMILY": PacketFamily,
	} {
		if !regexp.MustCompile(`#define\s+` + name + `\s+"` + got + `"`).Match(text) {
			t.Errorf("%s is not %q in the header", name, got)
		}
	}
}

var (
	comment = regexp.MustCompile(`(?s)/\*.*?\*/`)
	enum    = regexp.MustCompile(`(?s)enum\s+\w*\s*\{(.*?)\}`)
	define  = regexp.MustCompile(`(?m)^#define\s+(\w+)\s+(0x[0-9a-f]+|\d+|\(1 << (\d+)\))\s*$`)
)

// constants reads the enumerations and plain definitions of a C header.
func constants(text string) map[string]int {
	out := map[string]int{}
	text = comment.ReplaceAllString(text, "")
	for _, m := range define.FindAllStringSubmatch(text, -1) {
		if m[3] != "" {
			n, _ := strconv.Atoi(m[3])
			out[m[1]] = 1 << n
			continue
		}
		n, _ := strconv.ParseInt(m[2], 0, 32)
		out[m[1]] = int(n)
	}
	for _, m := range enum.FindAllStringSubmatch(text, -1) {
		next := 0
		for word := range strings.SplitSeq(m[1], ",") {
			name, value, set := strings.Cut(word, "=")
			if name = strings.TrimSpace(name); name == "" {
				continue
			}
			if n, err := strconv.ParseInt(strings.TrimSpace(value), 0, 32); set && err == nil {
				next = int(n)
			}
			out[name] = next
			next++
		}
	}
	return out
}
