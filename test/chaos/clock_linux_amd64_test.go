package chaos

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// clock moves the wall clock of one process. Go reads the time through the vDSO, which no preloaded library and no namespace of the kernel changes.
// So the function of the vDSO is replaced in the memory of the process, before its first instruction, by one that asks the kernel and adds a
// number of seconds to CLOCK_REALTIME. This is what a step of the machine's clock does to the process: time.Now jumps, time that has
// passed (CLOCK_MONOTONIC, on which timers run) does not. It does not touch the clocks of Redis, of a data base or of the file system.
type clock struct {
	mem    *os.File
	at     int64 // address of the number of seconds
	offset time.Duration
}

// The function, for the C calling convention: clock in edi, struct timespec in rsi.
var skewed = []byte{
	0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, 228 (clock_gettime)
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi (CLOCK_REALTIME is 0)
	0x75, 0x0a, // jne done
	0x48, 0x8b, 0x0d, 0x06, 0x00, 0x00, 0x00, // mov rcx, [rip+6]
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0x31, 0xc0, // done: xor eax, eax
	0xc3,                   // ret
	0, 0, 0, 0, 0, 0, 0, 0, // the number of seconds
}

// startWithClock starts a command whose clock can be moved. The calling goroutine must be locked to its thread until the command has ended.
func startWithClock(cmd *exec.Cmd) (_ *clock, err error) {
	cmd.SysProcAttr.Ptrace = true // it stops at its first instruction
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	defer func() {
		if err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || !status.Stopped() {
		return nil, fmt.Errorf("it does not stop at its start: %v, %v", status, err)
	}
	c, err := replaceClock(pid)
	if err != nil {
		return nil, err
	}
	return c, syscall.PtraceDetach(pid)
}

func replaceClock(pid int) (*clock, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	var from, to int64
	for _, l := range strings.Split(string(maps), "\n") {
		if strings.HasSuffix(l, "[vdso]") {
			if _, err := fmt.Sscanf(l, "%x-%x", &from, &to); err != nil {
				return nil, err
			}
		}
	}
	if from == 0 {
		return nil, errors.New("the process has no vDSO")
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	image := make([]byte, to-from)
	if _, err := mem.ReadAt(image, from); err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	var ask, room int64 // the function that Go calls; one that it does not, with room for ours
	for _, s := range symbols {
		switch {
		case s.Name == "__vdso_clock_gettime":
			ask = from + int64(s.Value)
		case s.Name == "__vdso_gettimeofday" && s.Size >= uint64(len(skewed)):
			room = from + int64(s.Value)
		}
	}
	if ask == 0 || room == 0 {
		return nil, errors.New("the vDSO does not have the functions that are replaced")
	}
	jmp := binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(int32(room-ask-5)))
	if _, err := mem.WriteAt(skewed, room); err != nil {
		return nil, err
	}
	if _, err := mem.WriteAt(jmp, ask); err != nil {
		return nil, err
	}
	return &clock{mem: mem, at: room + int64(len(skewed)) - 8}, nil
}

// jump moves the clock on, or back, from where it is.
func (c *clock) jump(d time.Duration) error {
	c.offset += d
	_, err := c.mem.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(int64(c.offset/time.Second))), c.at)
	return err
}
