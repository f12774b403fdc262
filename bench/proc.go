package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// proc is a program that runs beside the bench. It gets a signal of its own from
// the kernel when the bench dies, so that nothing outlives it.
type proc struct {
	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when the process is gone
}

// start runs a program in the background; its output is kept for error messages.
func start(env []string, args ...string) (*proc, error) {
	p := &proc{cmd: exec.Command(args[0], args[1:]...), log: &tail{}, done: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = procAttr()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// procAttr keeps the terminal's Ctrl-C for the bench alone: it ends its children
// itself, in order.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func (p *proc) pid() int { return p.cmd.Process.Pid }

// failed returns an error when the process has ended, with its last words.
func (p *proc) failed() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %s: %s", p.cmd.Args, p.cmd.ProcessState, p.log)
	default:
		return nil
	}
}

// stop asks the process to end, and makes it after three seconds.
func (p *proc) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(3 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
}

// tail keeps the last few kilobytes that were written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

const tailSize = 4096

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}

// output runs a program to its end and returns what it wrote to standard output.
// stdin may be empty. The error has what it wrote to standard error.
func output(ctx context.Context, stdin string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = procAttr()
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	words := strings.TrimSpace(errs.String())
	if words == "" {
		words = strings.TrimSpace(out.String())
	}
	return out.Bytes(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, words)
}

// poll calls try until it succeeds, the limit passes (its last error is returned)
// or ctx ends. try may return errGiveUp, wrapped, to end it early.
func poll(ctx context.Context, limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || errors.Is(err, errGiveUp) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

var errGiveUp = errors.New("no use in waiting")
