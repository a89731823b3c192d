package chaos

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The clock of a child of this test binary, which prints the time, jumps by as much as it is told to; its timers go on.
func TestClockJumps(t *testing.T) {
	if os.Getenv("CHAOS_PRINT_TIME") != "" {
		for {
			_, _ = os.Stdout.WriteString(strconv.FormatInt(time.Now().Unix(), 10) + "\n")
			time.Sleep(20 * time.Millisecond)
		}
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Log("no clock is moved on this platform")
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run", "^TestClockJumps$")
	out := filepath.Join(t.TempDir(), "times")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Env, cmd.SysProcAttr = f, append(os.Environ(), "CHAOS_PRINT_TIME=1"), &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := startWithClock(cmd)
	if err != nil {
		t.Logf("this machine does not let a process's clock be moved (no ptrace, or another vDSO): %v", err)
		return
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	for _, want := range []time.Duration{0, time.Hour, -2 * time.Hour} {
		if err := c.jump(want); err != nil {
			t.Fatal(err)
		}
		want = c.offset
		before, _ := os.ReadFile(out)
		eventually(t, time.Minute, "the child to print the time", func() error {
			b, err := os.ReadFile(out)
			lines := strings.Split(strings.TrimSpace(string(b[len(before):])), "\n")
			if err != nil || len(lines) < 4 {
				return errAgain
			}
			at, err := strconv.ParseInt(lines[3], 10, 64) // the first may have been on its way
			if err != nil {
				return err
			}
			if off := time.Until(time.Unix(at, 0)) - want; off.Abs() > time.Minute {
				t.Errorf("its clock is %v off, want %v", time.Until(time.Unix(at, 0)), want)
			}
			return nil
		})
	}
}
