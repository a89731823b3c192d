package chaos

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program that is started again whenever it ends, as a service manager does it.
type process struct {
	t    *testing.T
	name string
	argv []string
	env  []string
	log  string // file with what it says
	skew bool   // its clock can be moved

	mu    sync.Mutex
	cmd   *exec.Cmd
	clock *clock
	down  time.Time     // it is not started before
	ends  []string      // how it ended by itself
	ours  bool          // we have ended it
	over  bool          // the run is over
	gone  chan struct{} // closed when nothing starts it any more
}

// keep starts a program and keeps it running until the test ends.
func keep(t *testing.T, p *process) *process {
	t.Helper()
	p.t, p.gone = t, make(chan struct{})
	started := make(chan error, 1)
	go p.loop(started)
	if err := <-started; err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	t.Cleanup(func() {
		p.mu.Lock()
		p.over = true
		p.mu.Unlock()
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGTERM)
		select {
		case <-p.gone:
		case <-time.After(30 * time.Second):
			t.Errorf("%s does not end by SIGTERM", p.name)
			p.signal(syscall.SIGKILL)
			<-p.gone
		}
	})
	return p
}

func (p *process) loop(started chan<- error) {
	runtime.LockOSThread() // who traces a process at its start is a thread
	defer runtime.UnlockOSThread()
	defer close(p.gone)
	for first := true; ; first = false {
		cmd, err := p.start()
		if first {
			started <- err
		}
		if err == nil {
			err = cmd.Wait()
		}
		p.mu.Lock()
		if !p.ours && !p.over {
			p.ends = append(p.ends, fmt.Sprintf("%v, and said last: %s", err, lastLine(p.log)))
		}
		p.cmd, p.clock, p.ours = nil, nil, false
		pause := max(300*time.Millisecond, time.Until(p.down))
		over := p.over || first && err != nil && cmd == nil
		p.mu.Unlock()
		if over {
			return
		}
		time.Sleep(pause)
	}
}

// lastLine is the end of a file.
func lastLine(path string) string {
	b, _ := os.ReadFile(path)
	b = bytes.TrimSpace(b)
	return string(b[bytes.LastIndexByte(b, '\n')+1:])
}

func (p *process) start() (*exec.Cmd, error) {
	f, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, _ = f.WriteString(begun + "\n")
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = f, f, append(os.Environ(), p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.skew {
		if c, err := startWithClock(cmd); err == nil {
			p.cmd, p.clock = cmd, c
			return cmd, nil
		}
		p.skew = false // not here; it runs without
		cmd = exec.Command(p.argv[0], p.argv[1:]...)
		cmd.Stdout, cmd.Stderr, cmd.Env = f, f, append(os.Environ(), p.env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	p.cmd = cmd
	return cmd, cmd.Start()
}

// signal sends a signal; false when the process does not run.
func (p *process) signal(s syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.Process == nil {
		return false
	}
	return p.cmd.Process.Signal(s) == nil
}

// await waits a little for a process that a fault before has ended, so that the next one hits something.
func (p *process) await() {
	for end := time.Now().Add(2 * time.Second); !p.signal(0) && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
}

// end ends the process with a signal and keeps it down for a while; false when it does not run.
func (p *process) end(s syscall.Signal, down time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.Process == nil {
		return false
	}
	if p.cmd.Process.Signal(s) != nil {
		return false
	}
	p.ours, p.down = true, time.Now().Add(down)
	return true
}

// jump moves the clock of the process; false where that cannot be done, or it is down.
func (p *process) jump(d time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clock != nil && p.clock.jump(d) == nil
}

// ended tells how the process ended without our doing.
func (p *process) ended() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ends)
}
