package modelrt

import (
	"errors"
	"fmt"
)

// Config is the section "model" of the configuration file.
type Config struct {
	Bundle  string `yaml:"bundle"`  // folder of the model bundle; empty: the default bundle
	Form    string `yaml:"form"`    // of the bundle's language model; empty: the first that the device runs
	Texts   int    `yaml:"texts"`   // written side by side; 0: a few
	Threads int    `yaml:"threads"` // of ONNX Runtime and of decoding; 0: one a core
	// Spin lets ONNX Runtime's threads wait actively: a little faster on a machine that does nothing else, several times slower beside
	// other work. Forms of the kind flat decode without them.
	Spin bool `yaml:"spin"`
	// Device is auto (CUDA where its libraries load, else the CPU), cpu, or cuda (refuse to start without).
	Device string `yaml:"device"`
}

// DefaultConfig returns what suits any machine.
func DefaultConfig() Config { return Config{Device: "auto"} }

// Check returns what is wrong with the configuration.
func (c Config) Check() error {
	var errs []error
	if c.Threads < 0 || c.Threads > 1024 {
		errs = append(errs, fmt.Errorf("model.threads: %d is not between 0 and 1024", c.Threads))
	}
	if c.Texts < 0 || c.Texts > 256 {
		errs = append(errs, fmt.Errorf("model.texts: %d is not between 0 and 256", c.Texts))
	}
	switch c.Device {
	case "auto", string(CPU), string(CUDA):
	default:
		errs = append(errs, fmt.Errorf("model.device: %q is not auto, %s or %s", c.Device, CPU, CUDA))
	}
	return errors.Join(errs...)
}

// Wanted returns the device as Start takes it.
func (c Config) Wanted() Device {
	if c.Device == "auto" {
		return Auto
	}
	return Device(c.Device)
}
