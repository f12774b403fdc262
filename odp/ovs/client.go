package ovs

import (
	"errors"
	"fmt"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"weave/odp"
	"weave/odp/keeper"
	"weave/odp/ovs/wire"
)

// client asks the datapath's families in one network namespace. Methods may be called
// from any goroutine.
type client struct {
	conn                           *genetlink.Conn
	datapath, vport, flow, packets family
}

type family struct {
	id      uint16
	version uint8
}

// dial finds the families; a kernel that has the module but not loaded it does so now.
func dial(host *keeper.Host) (*client, error) {
	conn, err := genetlink.Dial(&netlink.Config{NetNS: host.FD()})
	if err != nil {
		return nil, &odp.ReasonError{Why: odp.ReasonOVS, Err: fmt.Errorf("opening generic netlink: %w", err)}
	}
	c := &client{conn: conn}
	for _, f := range []struct {
		to   *family
		name string
		v    uint8
	}{
		{&c.datapath, wire.DatapathFamily, wire.DatapathVersion},
		{&c.vport, wire.VportFamily, wire.VportVersion},
		{&c.flow, wire.FlowFamily, wire.FlowVersion},
		{&c.packets, wire.PacketFamily, wire.PacketVersion},
	} {
		got, err := conn.GetFamily(f.name)
		if err != nil {
			conn.Close()
			return nil, &odp.ReasonError{Why: odp.ReasonOVS, Err: fmt.Errorf(
				"the kernel has no %s (module openvswitch): %w", f.name, err)}
		}
		*f.to = family{got.ID, f.v}
	}
	return c, nil
}

func (c *client) close() {
	if c != nil {
		c.conn.Close()
	}
}

// message is one of package wire.
type message interface{ Append([]byte) []byte }

// do sends a request and returns what comes back.
func (c *client) do(f family, cmd uint8, flags netlink.HeaderFlags, m message) ([]genetlink.Message, error) {
	return c.conn.Execute(genetlink.Message{
		Header: genetlink.Header{Command: cmd, Version: f.version}, Data: m.Append(nil),
	}, f.id, netlink.Request|flags)
}

// tell sends a request that has no answer but an acknowledgement.
func (c *client) tell(f family, cmd uint8, m message) error {
	_, err := c.do(f, cmd, netlink.Acknowledge, m)
	return err
}

// isAbsent reports whether err says that there is no such datapath, vport or flow.
func isAbsent(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) }

// getDatapath asks for a datapath by the name of its own device.
func (c *client) getDatapath(name string) (wire.Datapath, error) {
	msgs, err := c.do(c.datapath, wire.CmdGet, 0, &wire.Datapath{Name: name})
	if err != nil {
		return wire.Datapath{}, err
	}
	if len(msgs) == 0 {
		return wire.Datapath{}, unix.ENODEV
	}
	return wire.ParseDatapath(msgs[0].Data)
}

// getVport asks for a vport by its number.
func (c *client) getVport(datapath int32, port uint32) (wire.Vport, error) {
	msgs, err := c.do(c.vport, wire.CmdGet, 0, &wire.Vport{Datapath: datapath, Port: &port})
	if err != nil {
		return wire.Vport{}, err
	}
	if len(msgs) == 0 {
		return wire.Vport{}, unix.ENODEV
	}
	return wire.ParseVport(msgs[0].Data)
}

// put makes a flow, or gives one with the same identifier other actions. The kernel
// does the latter at once only if the key is zero where the mask is, which ours cannot
// be.
func (c *client) put(f *wire.Flow) error {
	err := c.tell(c.flow, wire.CmdNew, f)
	if errors.Is(err, unix.ENOENT) {
		err = c.tell(c.flow, wire.CmdSet, f)
	}
	return err
}

// del removes a flow; none is no error.
func (c *client) del(f *wire.Flow) error {
	if err := c.tell(c.flow, wire.CmdDel, f); err != nil && !isAbsent(err) {
		return err
	}
	return nil
}

// flows lists the flows; omit says what is left out of those that have an identifier.
func (c *client) flows(datapath int32, omit uint32) ([]wire.Flow, error) {
	msgs, err := c.do(c.flow, wire.CmdGet, netlink.Dump, &wire.Flow{Datapath: datapath, UFIDFlags: omit})
	if err != nil {
		return nil, err
	}
	out := make([]wire.Flow, 0, len(msgs))
	for _, m := range msgs {
		f, err := wire.ParseFlow(m.Data)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// execute sends a frame by actions.
func (c *client) execute(p *wire.Packet) error { return c.tell(c.packets, wire.PacketExecute, p) }
