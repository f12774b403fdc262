package handshake

import (
	"fmt"
	"io"
)

// Run drives a new Machine over a connection until both ends agree or one gives
// up. It reads no byte beyond the handshake, so the connection can be used from
// there on. It blocks as long as rw does: set a deadline first, and close the
// connection after an error.
func Run(rw io.ReadWriter, m *Machine) (Result, error) {
	buf := make([]byte, MaxFrame)
	out, done, stepErr := m.Start(), false, error(nil)
	for {
		if len(out) > 0 {
			if _, err := rw.Write(out); err != nil && stepErr == nil {
				return Result{}, fmt.Errorf("writing handshake: %w", err)
			}
		}
		if stepErr != nil || done {
			return m.Result(), stepErr
		}
		in := buf[:m.Need()]
		if _, err := io.ReadFull(rw, in); err != nil {
			return Result{}, fmt.Errorf("reading handshake: %w", err)
		}
		out, done, stepErr = m.Step(in)
	}
}
