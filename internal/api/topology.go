package api

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"weave/internal/peer"
)

// Topology is the answer to `weave topology`: who is connected to whom, as the
// daemon knows it.
type Topology struct {
	Schema string         `json:"schema"`
	Peers  []TopologyPeer `json:"peers"` // by name
	Links  []TopologyLink `json:"links"` // by both names
}

// TopologyPeer is a member and the way to it.
type TopologyPeer struct {
	Name     peer.Name `json:"name"`
	NickName string    `json:"nickname"`
	Self     bool      `json:"self,omitempty"`
	Hops     int       `json:"hops"`         // links on the way that data takes from this peer; -1: there is none
	Via      peer.Name `json:"via,omitzero"` // the last peer before it on that way
}

// TopologyLink is a connection between two peers.
type TopologyLink struct {
	A           peer.Name `json:"a"` // the lower name
	B           peer.Name `json:"b"`
	Established bool      `json:"established"` // both ends say so: data may go over it
}

// TopologyOf makes the graph out of what the peers say of their connections. A peer
// that only others speak of is left out.
func TopologyOf(ps Peers) Topology {
	t := Topology{Schema: Schema, Peers: []TopologyPeer{}, Links: []TopologyLink{}}
	ends := map[[2]peer.Name]int{} // how many of a link's ends say it is established
	known := map[peer.Name]bool{}
	for _, p := range ps.Peers {
		known[p.Name] = true
		t.Peers = append(t.Peers, TopologyPeer{Name: p.Name, NickName: p.NickName, Self: p.Self, Hops: -1})
	}
	for _, p := range ps.Peers {
		for _, c := range p.Connections {
			pair := [2]peer.Name{p.Name, c.Name}
			if c.Name.Compare(p.Name) < 0 {
				pair = [2]peer.Name{c.Name, p.Name}
			}
			if !known[c.Name] || c.Name == p.Name {
				continue
			}
			n := ends[pair]
			if c.Established {
				n++
			}
			ends[pair] = n
		}
	}
	for pair, n := range ends {
		t.Links = append(t.Links, TopologyLink{A: pair[0], B: pair[1], Established: n >= 2})
	}
	slices.SortFunc(t.Peers, func(a, b TopologyPeer) int { return a.Name.Compare(b.Name) })
	slices.SortFunc(t.Links, func(a, b TopologyLink) int {
		if c := a.A.Compare(b.A); c != 0 {
			return c
		}
		return a.B.Compare(b.B)
	})
	t.findWays()
	return t
}

// findWays searches breadth first from this peer, in order of name, as the routes of
// frames are found.
func (t *Topology) findWays() {
	index := map[peer.Name]int{}
	level := []int{}
	for i, p := range t.Peers {
		index[p.Name] = i
		if p.Self {
			t.Peers[i].Hops = 0
			level = append(level, i)
		}
	}
	next := map[int][]int{}
	for _, l := range t.Links {
		if l.Established {
			a, b := index[l.A], index[l.B]
			next[a], next[b] = append(next[a], b), append(next[b], a)
		}
	}
	for hops := 1; len(level) > 0; hops++ {
		var reached []int
		slices.Sort(level)
		for _, i := range level {
			slices.Sort(next[i])
			for _, j := range next[i] {
				if t.Peers[j].Hops < 0 {
					t.Peers[j].Hops, t.Peers[j].Via = hops, t.Peers[i].Name
					reached = append(reached, j)
				}
			}
		}
		level = reached
	}
}

// maxMatrix is the number of peers up to which all links are drawn.
const maxMatrix = 40

// WriteTopology draws the ways from this peer as a tree and, if there are not too
// many peers, all links as a matrix.
func WriteTopology(w io.Writer, t Topology) error {
	var b bytes.Buffer
	up := 0
	for _, l := range t.Links {
		if l.Established {
			up++
		}
	}
	fmt.Fprintf(&b, "%s, %s", count(len(t.Peers), "peer"), count(up, "link"))
	if n := len(t.Links) - up; n > 0 {
		fmt.Fprintf(&b, " and %d pending", n)
	}
	b.WriteString("\n\n")
	for _, p := range t.Peers {
		if p.Self {
			fmt.Fprintln(&b, oneLine(nameAndNick(p.Name, p.NickName)))
			t.tree(&b, p.Name, "")
		}
	}
	for _, p := range t.Peers {
		if p.Hops < 0 {
			fmt.Fprintf(&b, "no way: %s\n", oneLine(nameAndNick(p.Name, p.NickName)))
		}
	}
	if n := len(t.Peers); n > 2 && n <= maxMatrix {
		t.matrix(&b)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// tree draws the peers that are reached over one.
func (t Topology) tree(b *bytes.Buffer, over peer.Name, indent string) {
	var here []TopologyPeer
	for _, p := range t.Peers {
		if p.Hops > 0 && p.Via == over {
			here = append(here, p)
		}
	}
	for i, p := range here {
		branch, below := "├─ ", "│  "
		if i == len(here)-1 {
			branch, below = "└─ ", "   "
		}
		fmt.Fprintf(b, "%s%s%s\n", indent, branch, oneLine(nameAndNick(p.Name, p.NickName)))
		t.tree(b, p.Name, indent+below)
	}
}

// matrix draws all links.
func (t Topology) matrix(b *bytes.Buffer) {
	cell := map[[2]peer.Name]string{}
	for _, l := range t.Links {
		s := "o"
		if l.Established {
			s = "#"
		}
		cell[[2]peer.Name{l.A, l.B}], cell[[2]peer.Name{l.B, l.A}] = s, s
	}
	width := len(fmt.Sprint(len(t.Peers)))
	fmt.Fprintf(b, "\n%*s ", width, "")
	for j := range t.Peers {
		fmt.Fprintf(b, " %*d", width, j+1)
	}
	b.WriteByte('\n')
	for i, p := range t.Peers {
		fmt.Fprintf(b, "%*d ", width, i+1)
		for j, q := range t.Peers {
			s := cell[[2]peer.Name{p.Name, q.Name}]
			if i == j {
				s = "-"
			} else if s == "" {
				s = "."
			}
			fmt.Fprintf(b, " %*s", width, s)
		}
		fmt.Fprintf(b, "  %s\n", oneLine(nameAndNick(p.Name, p.NickName)))
	}
	b.WriteString("\n# link   o pending   . none\n")
}

// WriteTopologyDOT writes the graph in the language of Graphviz; links that carry no
// data are dashed, this peer is a box.
func WriteTopologyDOT(w io.Writer, t Topology) error {
	var b bytes.Buffer
	b.WriteString("graph weave {\n")
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	for _, p := range t.Peers {
		shape := "ellipse"
		if p.Self {
			shape = "box"
		}
		fmt.Fprintf(&b, "\t\"%s\" [label=\"%s\\n%s\" shape=%s];\n", p.Name, escape.Replace(oneLine(p.NickName)), p.Name, shape)
	}
	for _, l := range t.Links {
		style := ""
		if !l.Established {
			style = " [style=dashed]"
		}
		fmt.Fprintf(&b, "\t\"%s\" -- \"%s\"%s;\n", l.A, l.B, style)
	}
	b.WriteString("}\n")
	_, err := w.Write(b.Bytes())
	return err
}
