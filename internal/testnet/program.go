package testnet

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Main runs fn with a TB for programs that are no tests, and returns the exit code
// for os.Exit: 0, 1 after Errorf or Fatalf, 2 after Skipf, 130 when a signal came.
// What labs made is removed in each case. Messages go to standard error.
func Main(fn func(TB)) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	p := &program{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer p.cleanUp()
		fn(p)
	}()
	select {
	case <-done:
	case <-signals:
		// fn is still at work; what it makes from now on, the next New removes.
		remove(func(pid int) bool { return pid == os.Getpid() })
		return 130
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.failed:
		return 1
	case p.skipped:
		return 2
	}
	return 0
}

// program is the TB of Main.
type program struct {
	mu       sync.Mutex
	failed   bool
	skipped  bool
	cleanups []func()
}

func (p *program) Helper()      {}
func (p *program) Name() string { return "main" }

func (p *program) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (p *program) Errorf(format string, args ...any) {
	p.Logf(format, args...)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = true
}

// Fatalf ends the calling goroutine, as testing.T's does.
func (p *program) Fatalf(format string, args ...any) {
	p.Errorf(format, args...)
	runtime.Goexit()
}

func (p *program) Skipf(format string, args ...any) {
	p.Logf(format, args...)
	p.mu.Lock()
	p.skipped = true
	p.mu.Unlock()
	runtime.Goexit()
}

func (p *program) Failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

func (p *program) Cleanup(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanups = append(p.cleanups, fn)
}

// cleanUp runs the functions given to Cleanup, last first.
func (p *program) cleanUp() {
	for {
		p.mu.Lock()
		n := len(p.cleanups)
		if n == 0 {
			p.mu.Unlock()
			return
		}
		fn := p.cleanups[n-1]
		p.cleanups = p.cleanups[:n-1]
		p.mu.Unlock()
		fn()
	}
}
