package upstream

import (
	"container/list"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	maxAnswers  = 2048    // answers kept
	maxBytes    = 2 << 20 // of all of them as they came
	maxTTL      = time.Hour
	maxNegative = 15 * time.Minute
)

// key is what makes two questions one. The name is in lower case.
type key struct {
	name   string
	qtype  uint16
	do, cd bool
}

// cache holds answers, the least used of which goes first.
type cache struct {
	mu    sync.Mutex
	byKey map[key]*list.Element
	used  *list.List // of *answer, the last used in front
	bytes int
}

type answer struct {
	key  key
	msg  *dns.Msg // never changed
	size int
	at   time.Time
	ttl  time.Duration
}

func newCache() *cache { return &cache{byKey: map[key]*list.Element{}, used: list.New()} }

// lifetime says how long an answer may be kept: the shortest TTL in it; without records
// what its SOA says (RFC 2308 section 5), and not at all without SOA.
func lifetime(m *dns.Msg) time.Duration {
	if m.Truncated || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0
	}
	limit, least := maxTTL, uint32(1<<31-1)
	if len(m.Answer) == 0 || m.Rcode == dns.RcodeNameError {
		limit = maxNegative
		soa := false
		for _, r := range m.Ns {
			if s, ok := r.(*dns.SOA); ok {
				soa = true
				least = min(least, s.Minttl)
			}
		}
		if !soa {
			return 0
		}
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, r := range section {
			if r.Header().Rrtype == dns.TypeOPT {
				continue
			}
			ttl := r.Header().Ttl
			if ttl > 1<<31-1 {
				ttl = 0 // RFC 2181 section 8
			}
			least = min(least, ttl)
		}
	}
	return min(time.Duration(least)*time.Second, limit)
}

// put keeps an answer that is size bytes long. It must not be changed afterwards.
func (c *cache) put(k key, m *dns.Msg, size int, now time.Time) {
	ttl := lifetime(m)
	if ttl <= 0 || size > maxBytes/16 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(c.byKey[k])
	c.byKey[k] = c.used.PushFront(&answer{key: k, msg: m, size: size, at: now, ttl: ttl})
	c.bytes += size
	for c.used.Len() > maxAnswers || c.bytes > maxBytes {
		c.drop(c.used.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	if e == nil {
		return
	}
	a := c.used.Remove(e).(*answer)
	delete(c.byKey, a.key)
	c.bytes -= a.size
}

// get returns a copy with TTLs counted down, or nil.
func (c *cache) get(k key, now time.Time) *dns.Msg {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[k]
	if e == nil {
		return nil
	}
	a := e.Value.(*answer)
	age := now.Sub(a.at)
	if age >= a.ttl || age < 0 {
		c.drop(e)
		return nil
	}
	c.used.MoveToFront(e)
	m := a.msg.Copy()
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, r := range section {
			h := r.Header()
			h.Ttl -= min(h.Ttl, uint32(age/time.Second))
		}
	}
	return m
}

// clear forgets everything: other servers may know other names.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.byKey)
	c.used.Init()
	c.bytes = 0
}
