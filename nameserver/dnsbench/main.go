// Command dnsbench serves made-up names, and measures it side by side with other name
// servers that answer the same zone.
//
// Its one idea: a figure of a DNS server means nothing without that of a well-known
// server on the same machine in the same minute, so what counts are ratios. The script
// bench.sh beside it installs the others, starts each with the same zone on a loopback
// port, and runs dnsperf against them in turn.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"weave/internal/peer"
	"weave/nameserver"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:5300", "address and port to serve on")
	names := flag.Int("names", 10000, "names to serve: n0.weave.local. and so on")
	sockets := flag.Int("sockets", 1, "UDP sockets, each with its worker")
	zone := flag.String("print", "", "print the zone for another server and end: unbound, dnsmasq, queries or negative")
	profile := flag.String("profile", "", "write a CPU profile to this file")
	flag.Parse()
	if *zone != "" {
		printZone(*zone, *names)
		return
	}
	if err := serve(*listen, *names, *sockets, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "dnsbench:", err)
		os.Exit(1)
	}
}

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 32 + byte(i>>16), byte(i >> 8), byte(i)})
}

func name(i int) string { return fmt.Sprintf("n%d.weave.local.", i) }

func printZone(kind string, n int) {
	for i := range n {
		switch kind {
		case "unbound":
			fmt.Printf("local-data: \"%s 1 IN A %s\"\n", name(i), address(i+1))
		case "dnsmasq":
			fmt.Printf("%s %s\n", address(i+1), name(i)[:len(name(i))-1])
		case "queries":
			fmt.Printf("%s A\n", name(i*7919%n))
		case "negative":
			fmt.Printf("%s AAAA\n", name(i*7919%n))
		}
	}
}

func serve(listen string, names, sockets int, profile string) error {
	addr, err := netip.ParseAddrPort(listen)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := nameserver.Listen(ctx, addr, sockets)
	if err != nil {
		return err
	}
	srv, err := nameserver.New(nameserver.Config{
		Name: peer.NameFromBytes([peer.NameLen]byte{2, 0, 0, 0, 0, 1}), UID: peer.NewUID(),
		Allow: func(a netip.Addr) bool { return a.IsLoopback() }, Sockets: s,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	for i := range names {
		if err := srv.Add("bench", name(i), address(i+1)); err != nil {
			return err
		}
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	return srv.Run(ctx)
}
