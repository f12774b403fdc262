package udp

import "sync/atomic"

// Stats counts since Listen. Dropped and sent things are datagrams.
type Stats struct {
	TxDatagrams uint64 // handed to the kernel
	TxBytes     uint64 // their payload
	TxCalls     uint64 // system calls that sent something
	TxTrains    uint64 // trains sent with UDP_SEGMENT
	TxPlain     uint64 // trains refused by the kernel and sent again plain
	TxWaits     uint64 // times a sender waited for room in the socket buffer

	TxTooBig      uint64 // dropped: ErrTooBig
	TxCongested   uint64 // dropped: ErrCongested
	TxUnreachable uint64 // dropped: ErrUnreachable
	TxSource      uint64 // dropped: ErrSource
	TxRejected    uint64 // dropped: ErrRejected, ErrClosed

	RxSlots     uint64 // slots received
	RxDatagrams uint64 // datagrams in them, fillers included
	RxBytes     uint64 // their payload
	RxOverflow  uint64 // lost by the kernel, socket buffer full; a joined train counts as one
	RxTruncated uint64 // slots thrown away because data or control messages were cut
	RxErrors    uint64 // errors reported by the socket and ignored
}

func (s *Stats) add(o Stats) {
	s.TxDatagrams += o.TxDatagrams
	s.TxBytes += o.TxBytes
	s.TxCalls += o.TxCalls
	s.TxTrains += o.TxTrains
	s.TxPlain += o.TxPlain
	s.TxWaits += o.TxWaits
	s.TxTooBig += o.TxTooBig
	s.TxCongested += o.TxCongested
	s.TxUnreachable += o.TxUnreachable
	s.TxSource += o.TxSource
	s.TxRejected += o.TxRejected
	s.RxSlots += o.RxSlots
	s.RxDatagrams += o.RxDatagrams
	s.RxBytes += o.RxBytes
	s.RxOverflow += o.RxOverflow
	s.RxTruncated += o.RxTruncated
	s.RxErrors += o.RxErrors
}

// txCounters belong to one Sender, which alone writes them.
type txCounters struct {
	datagrams, bytes, calls, trains, plain, waits    atomic.Uint64
	tooBig, congested, unreachable, source, rejected atomic.Uint64
}

// sent counts one system call that sent n datagrams of size bytes in all.
func (c *txCounters) sent(n, size int) {
	c.calls.Add(1)
	c.datagrams.Add(uint64(n))
	c.bytes.Add(uint64(size))
}

// dropped counts n datagrams that were not sent because of err.
func (c *txCounters) dropped(err error, n int) {
	switch err {
	case ErrTooBig:
		c.tooBig.Add(uint64(n))
	case ErrCongested:
		c.congested.Add(uint64(n))
	case ErrUnreachable:
		c.unreachable.Add(uint64(n))
	case ErrSource:
		c.source.Add(uint64(n))
	default:
		c.rejected.Add(uint64(n))
	}
}

func (c *txCounters) stats() Stats {
	return Stats{
		TxDatagrams:   c.datagrams.Load(),
		TxBytes:       c.bytes.Load(),
		TxCalls:       c.calls.Load(),
		TxTrains:      c.trains.Load(),
		TxPlain:       c.plain.Load(),
		TxWaits:       c.waits.Load(),
		TxTooBig:      c.tooBig.Load(),
		TxCongested:   c.congested.Load(),
		TxUnreachable: c.unreachable.Load(),
		TxSource:      c.source.Load(),
		TxRejected:    c.rejected.Load(),
	}
}

// rxCounters belong to one Receiver, which alone writes them.
type rxCounters struct {
	slots, datagrams, bytes, overflow, truncated, errors atomic.Uint64
}

func (c *rxCounters) stats() Stats {
	return Stats{
		RxSlots:     c.slots.Load(),
		RxDatagrams: c.datagrams.Load(),
		RxBytes:     c.bytes.Load(),
		RxOverflow:  c.overflow.Load(),
		RxTruncated: c.truncated.Load(),
		RxErrors:    c.errors.Load(),
	}
}
