package ether

// NewSuperframe returns an empty Superframe whose buffer takes the largest frame,
// and one byte more, by which a reader can tell a frame that is too large.
func NewSuperframe() *Superframe {
	return &Superframe{Buf: make([]byte, Headroom, Headroom+MaxSuperframe+1), Head: Headroom}
}
