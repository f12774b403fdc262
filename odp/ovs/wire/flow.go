package wire

// Flow is a message of the family of flows. What is absent is zero.
type Flow struct {
	Datapath int32
	Key      Key
	RawKey   []byte // Parse: as the kernel wrote it; Append: written instead of Key
	Mask     *Key   // which bits of Key count; nil: all that are known of
	Actions  []Action
	// Drop says that there are no actions rather than no word of them.
	Drop      bool
	UFID      []byte // at most 16 bytes
	UFIDFlags uint32 // Omit bits, in requests for a dump
	Clear     bool   // statistics, with CmdSet
	Probe     bool   // errors are not to be logged by the kernel

	Packets, Bytes uint64 // that matched
	Used           uint64 // ms of the monotonic clock when one last did; 0: never
}

// Action is one of: a word to Userspace, a new outer header, Output. It is given by the
// one pointer that is not nil.
type Action struct {
	Output    *uint32
	SetTunnel *Tunnel
	Userspace *Userspace
	Other     uint16 // Parse: type of an action that is not known
}

// Userspace sends the frame up as a PacketAction.
type Userspace struct {
	PID      uint32 // of the netlink socket; without meaning where FeaturePerCPU is on
	Userdata []byte
}

// Output makes an action that sends the frame to a vport.
func Output(port uint32) Action { return Action{Output: &port} }

// SetTunnel makes an action that gives the frame an outer header, for a tunnel's vport.
func SetTunnel(t Tunnel) Action { return Action{SetTunnel: &t} }

// AppendActions appends what the attribute ACTIONS holds.
func AppendActions(b []byte, actions []Action) []byte {
	for _, a := range actions {
		switch {
		case a.Output != nil:
			b = append32(b, actionOutput, *a.Output)
		case a.SetTunnel != nil:
			var start int
			b, start = begin(b, actionSet)
			b = end(a.SetTunnel.appendNested(b), start)
		case a.Userspace != nil:
			var start int
			b, start = begin(b, actionUserspace)
			b = append32(b, userspacePID, a.Userspace.PID)
			if len(a.Userspace.Userdata) > 0 {
				b = appendBytes(b, userspaceUserdata, a.Userspace.Userdata)
			}
			b = end(b, start)
		}
	}
	return b
}

// ParseActions reads what the attribute ACTIONS holds.
func ParseActions(b []byte) (actions []Action, err error) {
	err = parseAttrs(b, func(f *fields, typ uint16, data []byte) {
		a := Action{Other: typ}
		switch typ {
		case actionOutput:
			a = Output(0)
			f.u32(a.Output, data)
		case actionSet:
			var k Key
			if k, f.err = ParseKey(data); k.Has == HasTunnel {
				a = SetTunnel(k.Tunnel)
			}
		case actionUserspace:
			a = Action{Userspace: &Userspace{}}
			f.err = parseAttrs(data, func(f *fields, typ uint16, data []byte) {
				switch typ {
				case userspacePID:
					f.u32(&a.Userspace.PID, data)
				case userspaceUserdata:
					a.Userspace.Userdata = data
				}
			})
		}
		actions = append(actions, a)
	})
	if err != nil {
		return nil, err
	}
	return actions, nil
}

// Append appends the message.
func (m *Flow) Append(b []byte) []byte {
	b = appendHeader(b, m.Datapath)
	nested := func(typ uint16, fill func([]byte) []byte) {
		var start int
		b, start = begin(b, typ)
		b = end(fill(b), start)
	}
	if m.RawKey != nil {
		b = appendBytes(b, flowKey, m.RawKey)
	} else if m.Key.Has != 0 {
		nested(flowKey, m.Key.Append)
	}
	if m.Mask != nil {
		nested(flowMask, m.Mask.Append)
	}
	if len(m.Actions) > 0 || m.Drop {
		nested(flowActions, func(b []byte) []byte { return AppendActions(b, m.Actions) })
	}
	if len(m.UFID) > 0 {
		b = appendBytes(b, flowUFID, m.UFID)
	}
	if m.UFIDFlags != 0 {
		b = append32(b, flowUFIDFlags, m.UFIDFlags)
	}
	if m.Clear {
		b = appendFlag(b, flowClear)
	}
	if m.Probe {
		b = appendFlag(b, flowProbe)
	}
	if m.Packets != 0 || m.Bytes != 0 {
		b = append64(b, flowStats, native, m.Packets, m.Bytes)
	}
	if m.Used != 0 {
		b = append64(b, flowUsed, native, m.Used)
	}
	return b
}

// ParseFlow reads a message; slices in it share b's memory.
func ParseFlow(b []byte) (m Flow, err error) {
	err = parse(b, &m.Datapath, func(f *fields, typ uint16, data []byte) {
		switch typ {
		case flowKey:
			m.RawKey = data
			m.Key, f.err = ParseKey(data)
		case flowMask:
			var k Key
			k, f.err = ParseKey(data)
			m.Mask = &k
		case flowActions:
			m.Actions, f.err = ParseActions(data)
			m.Drop = f.err == nil && len(m.Actions) == 0
		case flowUFID:
			m.UFID = data
		case flowUFIDFlags:
			f.u32(&m.UFIDFlags, data)
		case flowClear:
			m.Clear = true
		case flowProbe:
			m.Probe = true
		case flowStats:
			f.u64s(data, &m.Packets, &m.Bytes)
		case flowUsed:
			f.u64(&m.Used, native, data)
		}
	})
	if err != nil {
		return Flow{}, err
	}
	return m, nil
}

// Packet is a message of the family of packets: an upcall, or a frame to be executed,
// which needs all of Data, a key and actions.
type Packet struct {
	Datapath int32
	Data     []byte // the Ethernet frame
	Key      Key
	RawKey   []byte // as in Flow
	Actions  []Action
	Userdata []byte // of the Userspace action that sent the frame up
}

// Append appends the message.
func (m *Packet) Append(b []byte) []byte {
	b = appendHeader(b, m.Datapath)
	b = appendBytes(b, packetPacket, m.Data)
	b, start := begin(b, packetKey)
	if m.RawKey != nil {
		b = append(b, m.RawKey...)
	} else {
		b = m.Key.Append(b)
	}
	b = end(b, start)
	b, start = begin(b, packetActions)
	b = end(AppendActions(b, m.Actions), start)
	if len(m.Userdata) > 0 {
		b = appendBytes(b, packetUserdata, m.Userdata)
	}
	return b
}

// ParsePacket reads a message; slices in it share b's memory.
func ParsePacket(b []byte) (m Packet, err error) {
	err = parse(b, &m.Datapath, func(f *fields, typ uint16, data []byte) {
		switch typ {
		case packetPacket:
			m.Data = data
		case packetKey:
			m.RawKey = data
			m.Key, f.err = ParseKey(data)
		case packetActions:
			m.Actions, f.err = ParseActions(data)
		case packetUserdata:
			m.Userdata = data
		}
	})
	if err != nil {
		return Packet{}, err
	}
	return m, nil
}
