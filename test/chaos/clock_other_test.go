//go:build !(linux && amd64)

package chaos

import (
	"errors"
	"os/exec"
	"time"
)

// clock moves the wall clock of one process: nowhere but on Linux on x86-64.
type clock struct{}

func startWithClock(*exec.Cmd) (*clock, error) { return nil, errors.ErrUnsupported }

func (*clock) jump(time.Duration) error { return errors.ErrUnsupported }
