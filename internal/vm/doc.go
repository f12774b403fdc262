// Package vm runs test binaries under a kernel that has the modules this machine's
// kernel may lack: it builds an initramfs, boots Debian's cloud kernel with it in
// QEMU, and judges what the tests said.
//
// One static program, vmrun, is both ends: on the host it is the runner, in the
// machine it is process 1. The machine has no disk and no network; a [Job] goes in
// as a file of the initramfs, everything comes out over a serial line of its own,
// the tests' output framed by marker lines.
//
//	host: vmrun ─ go test -c ─ Image ─ Boot ══ initramfs ══▶ Init ─ modprobe ─ tests
//	         └── Report ◀══ second serial line ═══════════════┘
//
// A test that did not run is no success: the report holds every test that was asked
// for to having run, and takes a skip for a missing kernel feature for a failure.
package vm
