package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"weave/internal/api"
)

// maxPassword is the longest password, in bytes.
const maxPassword = 4096

// weakBits is the estimated entropy below which a password is remarked upon.
const weakBits = 50

// credentialName is the file that systemd's LoadCredential=password:... makes.
const credentialName = "password"

// readPassword finds the password: --password-file, then a systemd credential,
// WEAVE_PASSWORD_FILE, WEAVE_PASSWORD, --password. "" is none; an empty one is an
// error, because it would quietly make an open network.
func (a *app) readPassword(l *launchFlags) (Secret, error) {
	if l.passwordFile != "" {
		return a.passwordFrom("--password-file", l.passwordFile)
	}
	if dir, ok := a.lookupEnv("CREDENTIALS_DIRECTORY"); ok && dir != "" {
		path := filepath.Join(dir, credentialName)
		if _, err := os.Lstat(path); err == nil {
			// Its mode is the service manager's business.
			return readPasswordFile("systemd credential", path, false)
		}
	}
	if path, ok := a.lookupEnv("WEAVE_PASSWORD_FILE"); ok {
		return a.passwordFrom("WEAVE_PASSWORD_FILE", path)
	}
	if text, ok := a.lookupEnv("WEAVE_PASSWORD"); ok {
		return checkPassword("WEAVE_PASSWORD", text)
	}
	if l.passwordGiven {
		return checkPassword("--password", l.password)
	}
	return "", nil
}

func (a *app) passwordFrom(what, path string) (Secret, error) {
	if path == "-" {
		text, err := readText(a.stdin)
		if err != nil {
			return "", api.Errorf(api.CodeFailure, "password from standard input: %w", err)
		}
		return checkPassword("password from standard input", text)
	}
	return readPasswordFile(what, path, true)
}

// readPasswordFile reads the whole file. With private, a regular file that group
// or others have any access to is refused.
func readPasswordFile(what, path string, private bool) (Secret, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", api.Errorf(api.CodeNotFound, "%s: no file %s: make it, mode 0600", what, path)
	case err != nil:
		return "", fmt.Errorf("%s: %w", what, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", what, err)
	case fi.IsDir():
		return "", api.Errorf(api.CodeUsage, "%s: %s is a directory: name the file in it", what, path)
	case private && fi.Mode().IsRegular() && fi.Mode().Perm()&0o077 != 0:
		return "", api.Errorf(api.CodePermission, "%s: others can get at %s (mode %04o): chmod 600 %s", what, path, fi.Mode().Perm(), path)
	}
	text, err := readText(f)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return checkPassword(what, text)
}

// readText reads one text without the newline at its end.
func readText(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPassword+3)) // one too long, and CR LF
	b = bytes.TrimSuffix(b, []byte("\n"))
	return string(bytes.TrimSuffix(b, []byte("\r"))), err
}

func checkPassword(what, text string) (Secret, error) {
	switch {
	case text == "":
		return "", api.Errorf(api.CodeUsage, "%s is empty: give a password, or leave it away for an open network", what)
	case len(text) > maxPassword:
		return "", api.Errorf(api.CodeUsage, "%s is longer than %d bytes: use a shorter one", what, maxPassword)
	case strings.ContainsRune(text, 0):
		return "", api.Errorf(api.CodeUsage, "%s contains a NUL byte: is it a text file?", what)
	}
	return Secret(text), nil
}

// Bits that one character is worth, by what it is part of.
const (
	bitsRepeat = 0.5 // same as, or next to, the one before: aaaa, 1234
	bitsWord   = 1.8 // letters with a word's share of vowels
)

// passwordBits estimates the entropy of s from above: what a guesser needs who
// knows which kinds of characters are in it, words, runs and repetition.
func passwordBits(s string) float64 {
	runes := []rune(s)
	perRune := math.Log2(alphabet(runes))
	words := wordMask(runes)
	bits := 0.0
	for i, r := range runes {
		b := perRune
		if words[i] {
			b = min(b, bitsWord)
		}
		if i > 0 && (r-runes[i-1] >= -1 && r-runes[i-1] <= 1) {
			b = min(b, bitsRepeat)
		}
		bits += b
	}
	return bits
}

// alphabet counts the characters in the classes that occur.
func alphabet(runes []rune) float64 {
	n, seen := 1.0, map[float64]bool{}
	for _, r := range runes {
		class := 33.0 // ASCII's other marks
		switch {
		case unicode.IsDigit(r):
			class = 10
		case unicode.IsLower(r):
			class = 26
		case unicode.IsUpper(r):
			class = 26.5 // a class of its own
		case r > unicode.MaxASCII:
			class = 100
		}
		if !seen[class] {
			seen[class] = true
			n += class
		}
	}
	return n
}

// wordMask marks the runs of three or more letters that look like words.
func wordMask(runes []rune) []bool {
	mask := make([]bool, len(runes))
	for start := 0; start < len(runes); {
		end, vowels := start, 0
		for end < len(runes) && unicode.IsLetter(runes[end]) {
			if strings.ContainsRune("aeiouyAEIOUY", runes[end]) {
				vowels++
			}
			end++
		}
		if n := end - start; n >= 3 && vowels*4 >= n && vowels*10 <= n*7 {
			for i := start; i < end; i++ {
				mask[i] = true
			}
		}
		start = max(end, start+1)
	}
	return mask
}
