package api

import (
	"context"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// callerListener tags each connection with the uid of the process at its other
// end, which the kernel vouches for (SO_PEERCRED, unix(7)).
type callerListener struct{ net.Listener }

func (l callerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return callerConn{c, peerUID(c)}, nil
}

// callerConn carries the uid in its remote address, which survives the wrappers
// that net/http and others put around a connection.
type callerConn struct {
	net.Conn
	uid callerUID
}

func (c callerConn) RemoteAddr() net.Addr { return c.uid }

// callerUID is a uid, or -1 for a connection that has none.
type callerUID int64

func (u callerUID) Network() string { return "unix" }
func (u callerUID) String() string  { return "uid:" + strconv.FormatInt(int64(u), 10) }

func peerUID(c net.Conn) callerUID {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return -1
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return -1
	}
	uid := callerUID(-1)
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = callerUID(cred.Uid)
		}
	})
	return uid
}

// allowed reports whether u may use the control API.
func (u callerUID) allowed() bool { return u == 0 || u >= 0 && int64(u) == int64(os.Geteuid()) }

type callerKey struct{}

func withCaller(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, callerKey{}, c.RemoteAddr())
}

// callerOf returns who is asking; -1 when unknown.
func callerOf(ctx context.Context) callerUID {
	if u, ok := ctx.Value(callerKey{}).(callerUID); ok {
		return u
	}
	return -1
}
