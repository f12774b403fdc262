package wire

// Datapath is a message of the family of datapaths. What is absent is zero.
type Datapath struct {
	Index     int32  // ifindex of its own device; 0 where Name tells which
	Name      string // of its own device
	UpcallPID *uint32
	Features  *uint32  // Feature bits
	PIDs      []uint32 // FeaturePerCPU: sockets by processor
	Stats     DatapathStats
}

// DatapathStats are totals of a datapath.
type DatapathStats struct {
	Hit, Missed, Lost uint64 // frames that matched a flow, did not, could not be sent up
	Flows             uint64 // that there are
}

// Append appends the message.
func (m *Datapath) Append(b []byte) []byte {
	b = appendHeader(b, m.Index)
	if m.Name != "" {
		b = appendString(b, dpName, m.Name)
	}
	if m.UpcallPID != nil {
		b = append32(b, dpUpcallPID, *m.UpcallPID)
	}
	if m.Features != nil {
		b = append32(b, dpUserFeatures, *m.Features)
	}
	if len(m.PIDs) > 0 {
		b = append32(b, dpPerCPUPIDs, m.PIDs...)
	}
	if s := m.Stats; s != (DatapathStats{}) {
		b = append64(b, dpStats, native, s.Hit, s.Missed, s.Lost, s.Flows)
	}
	return b
}

// ParseDatapath reads a message.
func ParseDatapath(b []byte) (m Datapath, err error) {
	err = parse(b, &m.Index, func(f *fields, typ uint16, data []byte) {
		switch typ {
		case dpName:
			f.str(&m.Name, data)
		case dpUpcallPID:
			m.UpcallPID = new(uint32)
			f.u32(m.UpcallPID, data)
		case dpUserFeatures:
			m.Features = new(uint32)
			f.u32(m.Features, data)
		case dpPerCPUPIDs:
			f.u32s(&m.PIDs, data)
		case dpStats:
			s := &m.Stats
			f.u64s(data, &s.Hit, &s.Missed, &s.Lost, &s.Flows)
		}
	})
	if err != nil {
		return Datapath{}, err
	}
	return m, nil
}

// Vport is a message of the family of vports. What is absent is zero.
type Vport struct {
	Datapath int32
	Port     *uint32 // its number
	Type     uint32
	Name     string
	DstPort  uint16   // UDP, of a tunnel
	PIDs     []uint32 // sockets for upcalls, where FeaturePerCPU is off
	Stats    VportStats
}

// VportStats are totals of a vport.
type VportStats struct {
	RxPackets, TxPackets, RxBytes, TxBytes, RxErrors, TxErrors, RxDropped, TxDropped uint64
}

// Append appends the message.
func (m *Vport) Append(b []byte) []byte {
	b = appendHeader(b, m.Datapath)
	if m.Port != nil {
		b = append32(b, vportPortNo, *m.Port)
	}
	if m.Type != 0 {
		b = append32(b, vportType, m.Type)
	}
	if m.Name != "" {
		b = appendString(b, vportName, m.Name)
	}
	if m.DstPort != 0 {
		var start int
		b, start = begin(b, vportOptions)
		b = end(append16(b, tunnelOptDstPort, native, m.DstPort), start)
	}
	if len(m.PIDs) > 0 {
		b = append32(b, vportUpcallPID, m.PIDs...)
	}
	if s := m.Stats; s != (VportStats{}) {
		b = append64(b, vportStats, native, s.RxPackets, s.TxPackets, s.RxBytes, s.TxBytes,
			s.RxErrors, s.TxErrors, s.RxDropped, s.TxDropped)
	}
	return b
}

// ParseVport reads a message.
func ParseVport(b []byte) (m Vport, err error) {
	err = parse(b, &m.Datapath, func(f *fields, typ uint16, data []byte) {
		switch typ {
		case vportPortNo:
			m.Port = new(uint32)
			f.u32(m.Port, data)
		case vportType:
			f.u32(&m.Type, data)
		case vportName:
			f.str(&m.Name, data)
		case vportOptions:
			f.err = parseAttrs(data, func(f *fields, typ uint16, data []byte) {
				if typ == tunnelOptDstPort {
					f.u16(&m.DstPort, native, data)
				}
			})
		case vportUpcallPID:
			f.u32s(&m.PIDs, data)
		case vportStats:
			s := &m.Stats
			f.u64s(data, &s.RxPackets, &s.TxPackets, &s.RxBytes, &s.TxBytes,
				&s.RxErrors, &s.TxErrors, &s.RxDropped, &s.TxDropped)
		}
	})
	if err != nil {
		return Vport{}, err
	}
	return m, nil
}
