package harness

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weave/internal/testnet"
)

// Password is that of all networks here. It must not be seen anywhere.
const Password = "xeroxed-quokka-71-pagoda-92"

// Bounds of waiting that no promise of the documentation is about.
const (
	JoinLimit = 10 * time.Second
	PollEvery = 20 * time.Millisecond
)

// PasswordFile makes a file for --password-file.
func PasswordFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Within waits until cond holds and returns how long it took; the test fails at once
// when that is longer than limit.
func Within(t testing.TB, limit time.Duration, what string, cond func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > limit {
			t.Fatalf("%s: not after %v", what, limit)
		}
		time.Sleep(PollEvery)
	}
	return time.Since(start).Round(time.Millisecond)
}

// MustSucceed fails the test at once unless the command did what it was told.
func MustSucceed(t testing.TB, r testnet.Result) string {
	t.Helper()
	if r.Code != 0 {
		t.Fatalf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// HasLine reports whether a line of text has all the words.
func HasLine(text string, words ...string) bool {
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return true
		}
	}
	return false
}

// WantLine looks for a line with all the words.
func WantLine(t testing.TB, what, text string, words ...string) {
	t.Helper()
	if !HasLine(text, words...) {
		t.Errorf("%s: no line with %q in:\n%s", what, words, text)
	}
}
