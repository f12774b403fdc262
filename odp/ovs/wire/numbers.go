package wire

// Names and versions of the families.
const (
	DatapathFamily, DatapathVersion = "ovs_datapath", 2
	VportFamily, VportVersion       = "ovs_vport", 1
	FlowFamily, FlowVersion         = "ovs_flow", 1
	PacketFamily, PacketVersion     = "ovs_packet", 1
)

// Commands of the families of datapaths, vports and flows.
const (
	CmdNew = 1
	CmdDel = 2
	CmdGet = 3
	CmdSet = 4
)

// Commands of the family of packets: the kernel sends the first two.
const (
	PacketMiss    = 1 // no flow matched
	PacketAction  = 2 // a Userspace action
	PacketExecute = 3
)

// Feature bits of a datapath.
const (
	FeatureUnaligned = 1 << 0 // the last attribute may lack its padding
	FeatureVportPIDs = 1 << 1 // several sockets for each vport
	FeaturePerCPU    = 1 << 3 // a socket for each processor; Linux 5.15
)

// Types of vports.
const (
	VportNetdev   = 1
	VportInternal = 2
	VportVXLAN    = 4
)

// LocalPort is the port of the datapath's own device.
const LocalPort = 0

// Flags of what a dump of flows leaves out.
const (
	OmitKey     = 1 << 0
	OmitMask    = 1 << 1
	OmitActions = 1 << 2
)

// Attributes. Their names are those of the header without its prefixes.
const (
	dpName         = 1
	dpUpcallPID    = 2
	dpStats        = 3
	dpUserFeatures = 5
	dpPerCPUPIDs   = 8

	vportPortNo    = 1
	vportType      = 2
	vportName      = 3
	vportOptions   = 4
	vportUpcallPID = 5
	vportStats     = 6

	tunnelOptDstPort = 1 // of vportOptions

	flowKey       = 1
	flowActions   = 2
	flowStats     = 3
	flowUsed      = 5
	flowClear     = 6
	flowMask      = 7
	flowProbe     = 8
	flowUFID      = 9
	flowUFIDFlags = 10

	packetPacket   = 1
	packetKey      = 2
	packetActions  = 3
	packetUserdata = 4

	keyEncap     = 1
	keyInPort    = 3
	keyEthernet  = 4
	keyVLAN      = 5
	keyEtherType = 6
	keyTunnel    = 16

	tunID    = 0
	tunSrc4  = 1
	tunDst4  = 2
	tunTOS   = 3
	tunTTL   = 4
	tunDF    = 5
	tunCSum  = 6
	tunTPSrc = 9
	tunTPDst = 10
	tunSrc6  = 12
	tunDst6  = 13

	actionOutput    = 1
	actionUserspace = 2
	actionSet       = 3

	userspacePID      = 1
	userspaceUserdata = 2
)
