package vm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Image writes an initramfs, a cpio archive in the "newc" format of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst. It is not compressed:
// an emulated processor unpacks slowly. The first error is kept until Close.
type Image struct {
	out   *bufio.Writer
	file  *os.File
	size  int64
	inode int
	have  map[string]bool
	err   error
}

// Create starts an image in a file.
func Create(name string) (*Image, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	return &Image{out: bufio.NewWriterSize(f, 1<<20), file: f, have: make(map[string]bool)}, nil
}

// Close ends the archive.
func (m *Image) Close() error {
	m.entry("TRAILER!!!", 0, 0, nil)
	return errors.Join(m.err, m.out.Flush(), m.file.Close())
}

const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

func (m *Image) entry(name string, mode uint32, size int64, data io.Reader) {
	if m.err != nil {
		return
	}
	m.inode++
	n, err := fmt.Fprintf(m.out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		m.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	m.size += int64(n)
	if err == nil && data != nil {
		var copied int64
		m.pad()
		copied, err = io.Copy(m.out, data)
		m.size += copied
		if err == nil && copied != size {
			err = fmt.Errorf("%s changed while it was read", name)
		}
	}
	m.pad()
	m.err = err
}

func (m *Image) pad() {
	n := int(-m.size & 3)
	m.out.Write(make([]byte, n))
	m.size += int64(n)
}

// Dir adds a directory and those above it.
func (m *Image) Dir(name string) {
	name = strings.Trim(path.Clean(name), "/")
	if name == "" || name == "." || m.have[name] {
		return
	}
	m.Dir(path.Dir(name))
	m.have[name] = true
	m.entry(name, typeDir|0o755, 0, nil)
}

// Data adds a file.
func (m *Image) Data(name, text string, mode fs.FileMode) {
	if m.fresh(name) {
		m.entry(strings.Trim(name, "/"), typeFile|uint32(mode.Perm()), int64(len(text)), strings.NewReader(text))
	}
}

// Link adds a symbolic link.
func (m *Image) Link(name, target string) {
	if m.fresh(name) {
		m.entry(strings.Trim(name, "/"), typeLink|0o777, int64(len(target)), strings.NewReader(target))
	}
}

// fresh makes the directories above name, and is false if there is a name already.
func (m *Image) fresh(name string) bool {
	name = strings.Trim(name, "/")
	if m.have[name] {
		return false
	}
	m.Dir(path.Dir(name))
	m.have[name] = true
	return true
}

// File adds a copy of a file of the host.
func (m *Image) File(name, host string) {
	if !m.fresh(name) || m.err != nil {
		return
	}
	f, err := os.Open(host)
	if err != nil {
		m.err = err
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		m.err = err
		return
	}
	m.entry(strings.Trim(name, "/"), typeFile|uint32(st.Mode().Perm()), st.Size(), f)
}

// Tree adds a copy of a directory of the host; a missing one is empty.
func (m *Image) Tree(name, host string) {
	err := filepath.WalkDir(host, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at := path.Join(name, strings.TrimPrefix(p, host))
		switch {
		case d.IsDir():
			m.Dir(at)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			m.Link(at, target)
			return err
		case d.Type().IsRegular():
			m.File(at, p)
		}
		return m.err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) && m.err == nil {
		m.err = err
	}
}

// Tool adds a program of the host and the shared libraries it needs, at the place
// where it is on the host and under /bin.
func (m *Image) Tool(name string) error {
	host, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(host)
	if err != nil {
		return err
	}
	m.Program(real, real)
	// Programs that look at their own name find it.
	m.Link("/bin/"+name, real)
	return nil
}

// Program adds a program of the host under a name, and the shared libraries it
// needs where the host has them.
func (m *Image) Program(name, host string) {
	m.File(name, host)
	for _, lib := range libraries(host) {
		m.File(lib, lib)
	}
}

// libraries lists the shared libraries of a program, the loader among them; none
// if it is static.
func libraries(program string) (out []string) {
	text, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil // "not a dynamic executable"
	}
	for line := range strings.Lines(string(text)) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				out = append(out, word)
				break
			}
		}
	}
	return out
}
