package testnet_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/testnet"
)

// pings reports whether one of n pings from h to addr is answered.
func pings(h *testnet.Host, addr netip.Addr, n int) bool {
	r := h.Try("ping", "-n", "-i", "0.02", "-c", fmt.Sprint(n), "-W", "1", addr.String())
	return r.Code == 0
}

func TestUnderlay(t *testing.T) {
	lab := testnet.New(t)
	a, b := lab.Host("a"), lab.Host("b")

	for _, addr := range []netip.Addr{b.IP4, b.IP6} {
		if !pings(a, addr, 2) {
			t.Errorf("no answer from %v", addr)
		}
	}
	lab.Cut(a, b)
	if pings(a, b.IP4, 2) {
		t.Error("answer across a cut")
	}
	lab.Heal(a, b)
	if !pings(a, b.IP4, 2) {
		t.Error("no answer after healing")
	}
	b.Unplug()
	if pings(a, b.IP4, 2) {
		t.Error("answer from an unplugged host")
	}
	b.Plug()
	if !pings(a, b.IP4, 20) {
		t.Error("no answer after plugging in")
	}
	old := b.IP4
	b.Move()
	if pings(a, old, 2) || !pings(a, b.IP4, 2) || !pings(a, b.IP6, 2) {
		t.Errorf("move from %v to %v and %v was not followed", old, b.IP4, b.IP6)
	}
}

func TestPairAndMTU(t *testing.T) {
	lab := testnet.New(t)
	a, b := lab.Pair("a", "b", testnet.MTU(9000), testnet.NoIPv6())
	if b.IP6.IsValid() {
		t.Errorf("IPv6 address %v in spite of NoIPv6", b.IP6)
	}
	a.Exec("ping", "-n", "-c", "1", "-M", "do", "-s", "8972", b.IP4.String())
	a.SetMTU(1500)
	if r := a.Try("ping", "-n", "-c", "1", "-M", "do", "-s", "8972", b.IP4.String()); r.Code == 0 {
		t.Error("a packet larger than the MTU was sent")
	}
}

// A train of segments must lose single packets, not all of its packets at once.
func TestLossIsPerPacket(t *testing.T) {
	lab := testnet.New(t)
	a, b := lab.Host("a"), lab.Host("b")
	if !pings(a, b.IP4, 1) { // else the question for b's MAC may be lost, and be repeated after a second only
		t.Fatal("no underlay")
	}
	lab.Loss(a, b, 300)

	var rx, tx *net.UDPConn
	if err := b.Do(func() (err error) {
		rx, err = net.ListenUDP("udp4", &net.UDPAddr{IP: b.IP4.AsSlice(), Port: 5000})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer rx.Close()
	if raw, err := rx.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) })
	}
	if err := a.Do(func() (err error) {
		tx, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: b.IP4.AsSlice(), Port: 5000})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	raw, err := tx.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000) })
	if err != nil {
		t.Skipf("kernel without UDP_SEGMENT: %v", err)
	}
	const trains, segments = 20, 40
	for range trains {
		if _, err := tx.Write(make([]byte, segments*1000)); err != nil {
			t.Fatal(err)
		}
	}
	got := 0
	buf := make([]byte, 64<<10)
	for {
		rx.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := rx.Read(buf); err != nil {
			break
		}
		got++
	}
	// 800 datagrams, 30 % lost: 560 are to be expected, with a deviation of 13.
	if got < 480 || got > 640 {
		t.Errorf("got %d of %d datagrams, want about 560", got, trains*segments)
	}
}

func TestCaptureFindsCanary(t *testing.T) {
	lab := testnet.New(t)
	a, b := lab.Host("a"), lab.Host("b")
	cap := lab.Capture("CANARY-IN-CLEAR", "NEVER-SENT")
	if err := b.Do(func() error { // without it, the ICMP error would carry the canary back
		rx, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 5000})
		if err == nil {
			t.Cleanup(func() { rx.Close() })
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := a.Do(func() error {
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: b.IP4.AsSlice(), Port: 5000})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("xx CANARY-IN-CLEAR xx"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if !pings(a, b.IP4, 1) {
		t.Fatal("no underlay")
	}
	cap.Stop()
	if got := cap.Hits(); got["CANARY-IN-CLEAR"] != 1 || got["NEVER-SENT"] != 0 {
		t.Errorf("hits %v, want the canary once", got)
	}
	if frames, size := cap.Frames(); frames < 3 || size < 100 || cap.Dropped() != 0 {
		t.Errorf("%d frames, %d bytes, %d dropped", frames, size, cap.Dropped())
	}
}

func TestCommandRunsInsideAndDies(t *testing.T) {
	lab := testnet.New(t)
	h := lab.Host("a")
	c := h.Container("web")
	if got := c.Exec("ls", "/proc/self/ns/net"); !strings.Contains(got, "net") {
		t.Errorf("ls wrote %q", got)
	}
	inside := c.Exec("readlink", "/proc/self/ns/net")
	own, _ := os.Readlink("/proc/thread-self/ns/net")
	if strings.TrimSpace(inside) == own {
		t.Error("the command ran in the test's own namespace")
	}
	if r := c.Try("sh", "-c", "echo no >&2; exit 7"); r.Code != 7 || r.Stderr != "no\n" {
		t.Errorf("got %+v, want exit 7", r)
	}
	sleeper := c.Command(context.Background(), "sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	c.Delete()
	err := sleeper.Wait()
	if err == nil {
		t.Error("the process outlived its namespace")
	}
	if _, err := os.Stat(c.Path()); err == nil {
		t.Error("the namespace's name outlived it")
	}
}

// fakeTB records what a Lab says of a test.
type fakeTB struct {
	testing.TB
	cleanups []func()
	errors   []string
}

func (f *fakeTB) Helper()           {}
func (f *fakeTB) Cleanup(fn func()) { f.cleanups = append(f.cleanups, fn) }
func (f *fakeTB) Errorf(format string, args ...any) {
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
}
func (f *fakeTB) end() {
	for len(f.cleanups) > 0 {
		last := f.cleanups[len(f.cleanups)-1]
		f.cleanups = f.cleanups[:len(f.cleanups)-1]
		last()
	}
}

func TestLeakCheck(t *testing.T) {
	testnet.New(t) // skips without root
	f := &fakeTB{TB: t}
	lab := testnet.New(f)
	n := lab.Namespace("x")
	// Keeps the name in spite of the lab's removing it.
	if err := unix.Mount(n.Path(), n.Path(), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	f.end()
	if len(f.errors) != 1 || !strings.Contains(f.errors[0], n.Path()) {
		t.Errorf("got errors %q, want one that names %s", f.errors, n.Path())
	}
	unix.Unmount(n.Path(), unix.MNT_DETACH)
	os.Remove(n.Path())

	f = &fakeTB{TB: t}
	testnet.New(f).Host("a").Container("c").Command(context.Background(), "sleep", "60").Start()
	f.end()
	if len(f.errors) != 0 {
		t.Errorf("got errors %q of a lab that was removed", f.errors)
	}
}

// helperEnv makes the test binary play another role; its value says which.
const helperEnv = "TESTNET_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "abandon":
		f := &fakeTB{}
		fmt.Println(testnet.New(f).Namespace("x").Path())
		unix.Kill(os.Getpid(), unix.SIGKILL)
	case "program":
		os.Exit(testnet.Main(program))
	}
	os.Exit(m.Run())
}

// program is what a helper process does: it fails, or waits for a signal.
func program(t testnet.TB) {
	c := testnet.New(t).Host("a").Container("c")
	fmt.Println(c.Path())
	if os.Getenv("TESTNET_FAIL") != "" {
		t.Fatalf("failing as told")
	}
	c.Try("sleep", "60")
}

// helper prepares a run of the test binary in that role.
func helper(t *testing.T, role string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+role, "TMPDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	return cmd
}

func TestNewSweepsAfterKilledTests(t *testing.T) {
	testnet.New(t)
	out, _ := helper(t, "abandon").Output()
	path := strings.TrimSpace(string(out))
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the killed process left no namespace %q", path)
	}
	testnet.New(t)
	if _, err := os.Stat(path); err == nil {
		t.Errorf("%s is still there", path)
	}
}

func TestMainRemovesEverything(t *testing.T) {
	testnet.New(t)
	for _, tt := range []struct {
		name string
		end  func(*exec.Cmd)
		code int
	}{
		{"failure", func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "TESTNET_FAIL=1") }, 1},
		{"signal", nil, 130},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := helper(t, "program")
			if tt.end != nil {
				tt.end(cmd)
				cmd.Stderr = nil
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			path, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if tt.end == nil {
				cmd.Process.Signal(unix.SIGINT)
			}
			cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != tt.code {
				t.Errorf("exit %d, want %d", got, tt.code)
			}
			if left, _ := filepath.Glob("/run/netns/wv" + strconv.Itoa(cmd.Process.Pid) + "-*"); len(left) != 0 {
				t.Errorf("left %q; it had made %q", left, path)
			}
		})
	}
}
