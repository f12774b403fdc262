package ns_test

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/hostnet/ns"
)

// here names the calling thread's namespace.
func here() string {
	s, _ := os.Readlink("/proc/thread-self/ns/net")
	return s
}

// other makes a namespace that lives until the test ends.
func other(t *testing.T) (*ns.Thread, *os.File) {
	t.Helper()
	th, err := ns.NewNamespace()
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs root (CAP_SYS_ADMIN): run go test -exec sudo")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(th.Close)
	var f *os.File
	if err := th.Do(func() (err error) { f, err = os.Open("/proc/thread-self/ns/net"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return th, f
}

func TestDo(t *testing.T) {
	th, f := other(t)
	var inThread, inDo string
	th.Do(func() error { inThread = here(); return nil })
	sentinel := errors.New("from within")
	if err := ns.Do(int(f.Fd()), func() error { inDo = here(); return sentinel }); err != sentinel {
		t.Errorf("got error %v", err)
	}
	if inDo != inThread || inDo == here() || inDo == "" {
		t.Errorf("Do ran in %q, Thread in %q, the test in %q", inDo, inThread, here())
	}
}

func TestDoWithoutNamespace(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ran := false
	if err := ns.Do(int(f.Fd()), func() error { ran = true; return nil }); err == nil || ran {
		t.Errorf("got %v, ran %v", err, ran)
	}
}

func TestDoOfFunctionThatDoesNotReturn(t *testing.T) {
	_, f := other(t)
	if err := ns.Do(int(f.Fd()), func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("no error")
	}
}

// No goroutine may ever find itself in another namespace, however many enter one.
func TestThreadsAreClean(t *testing.T) {
	_, f := other(t)
	home := here()
	var wg sync.WaitGroup
	wrong := make(chan string, 10000)
	for range 20 {
		wg.Go(func() {
			for range 50 {
				if err := ns.Do(int(f.Fd()), func() error { runtime.Gosched(); return nil }); err != nil {
					t.Error(err)
				}
				if got := here(); got != home {
					wrong <- got
				}
			}
		})
	}
	wg.Wait()
	if len(wrong) > 0 {
		t.Errorf("%d goroutines found themselves elsewhere, such as in %s", len(wrong), <-wrong)
	}
	if main, _ := os.Readlink("/proc/self/ns/net"); main != home {
		t.Errorf("the main thread is in %s", main)
	}
	// Threads of earlier tests may take a moment to die; that of other stays.
	deadline := time.Now().Add(5 * time.Second)
	for strangers(t, home) > 1 {
		if time.Now().After(deadline) {
			t.Fatalf("%d threads are in other namespaces", strangers(t, home))
		}
		time.Sleep(time.Millisecond)
	}
}

// strangers counts this process's threads that are not in home.
func strangers(t *testing.T, home string) (n int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if got, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && got != home {
			n++
		}
	}
	return n
}
