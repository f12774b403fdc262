package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"
)

// Config of a Device.
type Config struct {
	Name       string // at most 15 bytes; "" or a pattern such as "tap%d" lets the kernel choose
	Queues     int    // 0 is 1
	MTU        int    // largest IP packet, in bytes; 0 leaves the kernel's default
	TxQueueLen int    // frames per queue that wait for Read; 0 leaves the kernel's default
	Log        *slog.Logger
}

// Device is a TAP device of this process: it is gone from the host when the
// process is. It is up, has no IP address and does not speak IPv6.
type Device struct {
	name     string
	index    int
	features Features
	host     host
	queues   []*Queue
	close    sync.Once
}

// Open makes a TAP device in the calling thread's network namespace, sets it up
// and finds out by trying what it can do. It needs CAP_NET_ADMIN there. A kernel
// that lacks a feature gives a Device that does without, and a line in the log.
func Open(cfg Config) (*Device, error) { return open(cfg, linux{}) }

func open(cfg Config, h host) (*Device, error) {
	d := &Device{host: h}
	if err := d.setUp(cfg, cfg.Log.With("interface", cfg.Name)); err != nil {
		d.Close()
		return nil, err
	}
	cfg.Log.Info("TAP device is up", "interface", d.name, "index", d.index, "queues", len(d.queues), "features", d.features.String())
	return d, nil
}

// setUp does what open is there for:
//
//	1  attach all queues; the first one makes the device
//	2  agree on the header and on offloads
//	3  set the link up, silent
//	4  probe what writes it takes, which needs it to be up
func (d *Device) setUp(cfg Config, log *slog.Logger) error {
	if err := d.attachQueues(cfg, log); err != nil {
		return err
	}
	fd := d.queues[0].fd
	if err := d.host.setHeaderSize(fd, vnetHdrLen); err != nil {
		return fmt.Errorf("setting the header size of %s: %w (%w)", d.name, ErrUnsupported, err)
	}
	if err := d.agreeOffloads(fd, log); err != nil {
		return err
	}
	if err := d.host.disableIPv6(d.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		// It costs a few useless frames; not worth refusing to run.
		log.Warn("IPv6 stays enabled on the TAP device", "error", err)
	}
	index, err := d.host.linkUp(d.name, cfg.MTU, cfg.TxQueueLen)
	if err != nil {
		return fmt.Errorf("setting up %s: %w", d.name, err)
	}
	d.index = index
	d.probeWrites(fd, log)
	for _, q := range d.queues {
		q.can = d.features
	}
	return nil
}

// attachQueues opens one descriptor per queue.
func (d *Device) attachQueues(cfg Config, log *slog.Logger) error {
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	want := max(1, cfg.Queues)
	d.features.MultiQueue = want > 1
	if d.features.MultiQueue {
		flags |= unix.IFF_MULTI_QUEUE
	}
	// Exclusive, or we might join another process's device as one more queue.
	d.name = cfg.Name
	err := d.attachQueue(flags | unix.IFF_TUN_EXCL)
	if d.features.MultiQueue && errors.Is(err, ErrUnsupported) {
		log.Warn("no multi-queue TAP device; using one queue", "error", err)
		d.features.MultiQueue, want = false, 1
		flags &^= unix.IFF_MULTI_QUEUE
		err = d.attachQueue(flags | unix.IFF_TUN_EXCL)
	}
	if err != nil {
		return err
	}
	for len(d.queues) < want {
		if err := d.attachQueue(flags); err != nil {
			log.Warn("TAP device has fewer queues than wanted", "queues", len(d.queues), "wanted", want, "error", err)
			break
		}
	}
	return nil
}

// attachQueue adds one queue to the device, which it makes if it is the first.
func (d *Device) attachQueue(flags uint16) error {
	fd, err := d.host.open()
	if err != nil {
		return openError(err)
	}
	name, err := d.host.attach(fd, d.name, flags)
	if err != nil {
		d.host.close(fd)
		return attachError(d.name, err)
	}
	d.name = name
	d.queues = append(d.queues, &Queue{fd: fd})
	return nil
}

// agreeOffloads asks for the largest set of offloads that the kernel takes.
func (d *Device) agreeOffloads(fd int, log *slog.Logger) error {
	var err error
	for i, o := range offloads {
		if err = d.host.setOffload(fd, o.flags); err != nil {
			continue
		}
		if i > 0 {
			log.Warn("kernel lacks TAP offloads", "features", o.can.String())
		}
		multi := d.features.MultiQueue
		d.features = o.can
		d.features.MultiQueue = multi
		return nil
	}
	return fmt.Errorf("setting the offloads of %s: %w", d.name, err)
}

// Name returns the interface's name.
func (d *Device) Name() string { return d.name }

// Index returns the interface's index in its network namespace.
func (d *Device) Index() int { return d.index }

// Queues returns how many queues there are: as many as Config.Queues, or fewer if
// the kernel gives no more, but at least one.
func (d *Device) Queues() int { return len(d.queues) }

// Queue returns queue i, from 0 to Queues()-1.
func (d *Device) Queue(i int) *Queue { return d.queues[i] }

// Features returns what the kernel agreed to do.
func (d *Device) Features() Features { return d.features }

// Close takes the device away. Nobody may be in a Queue's Read or Write, nor poll
// its FD; calls after Close return ErrClosed. Close may be called twice.
func (d *Device) Close() error {
	d.close.Do(func() {
		for _, q := range d.queues {
			d.host.close(q.fd)
			q.fd = -1
		}
	})
	return nil
}
