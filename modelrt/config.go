package modelrt

import (
	"errors"
	"fmt"

	"chatxray/modelrt/guard"
)

// Config is the section "model" of the configuration file.
type Config struct {
	Bundle  string `yaml:"bundle"`  // folder of the model bundle; empty: the default bundle
	Form    string `yaml:"form"`    // of the bundle's language model; empty: the first that the device runs
	Adapter string `yaml:"adapter"` // that reports are written with; empty: the bundle's own
	// Adapters is a folder with more adapters than the bundle has.
	Adapters string `yaml:"adapters"`
	Language string `yaml:"language"` // of the reports, one of the bundle's; empty: its first
	// Activations are exact (float32), or int8: rounded to 8 bits where the form's matrices are of 4 or 8 bits.
	Activations string `yaml:"activations"`
	Texts       int    `yaml:"texts"`   // written side by side; 0: a few
	Threads     int    `yaml:"threads"` // of ONNX Runtime and of decoding; 0: one a core
	// Spin lets ONNX Runtime's threads wait actively: a little faster on a machine that does nothing else, several times slower beside
	// other work. Forms of the kind flat decode without them.
	Spin bool `yaml:"spin"`
	// Device is auto (CUDA where its libraries load, else the CPU), cpu, or cuda (refuse to start without).
	Device string `yaml:"device"`
	// Devices are the numbers of the GPUs to use, each with a model and caches of its own; none: GPU 0.
	Devices []int `yaml:"devices"`
	// MemoryMB is what ONNX Runtime may take of each GPU for a graph: the language model with its caches is one. 0: no limit. On the CPU it is
	// for the graphs of the image and forms of the kind gqa together.
	MemoryMB int            `yaml:"memory_mb"`
	Evidence EvidenceConfig `yaml:"evidence"`
}

// EvidenceConfig says what becomes of sentences that a rule has flagged.
type EvidenceConfig struct {
	Policy Policy `yaml:"policy"`
}

// Policy is what becomes of flagged sentences.
type Policy string

// The policies.
const (
	Mark Policy = "mark" // they stay, with their flags
	Drop Policy = "drop" // they are taken out of the report, which says how many
	Hold Policy = "hold" // the report waits for a person
)

// DefaultConfig returns what suits any machine.
func DefaultConfig() Config {
	return Config{Activations: "exact", Device: "auto", Evidence: EvidenceConfig{Policy: Mark}}
}

// Check returns what is wrong with the configuration.
func (c Config) Check() error {
	var errs []error
	if c.Threads < 0 || c.Threads > 1024 {
		errs = append(errs, fmt.Errorf("model.threads: %d is not between 0 and 1024", c.Threads))
	}
	if c.Texts < 0 || c.Texts > 256 {
		errs = append(errs, fmt.Errorf("model.texts: %d is not between 0 and 256", c.Texts))
	}
	seen := map[int]bool{}
	for _, d := range c.Devices {
		if d < 0 || d > 63 || seen[d] {
			errs = append(errs, fmt.Errorf("model.devices: %d is not between 0 and 63, or stands there twice", d))
		}
		seen[d] = true
	}
	if len(c.Devices) > 0 && c.Device == string(CPU) {
		errs = append(errs, fmt.Errorf("model.devices: these are GPUs, and model.device is %s", CPU))
	}
	if c.MemoryMB < 0 {
		errs = append(errs, fmt.Errorf("model.memory_mb: %d is less than 0", c.MemoryMB))
	}
	if _, err := guard.ScriptsFor(c.Language); c.Language != "" && err != nil {
		errs = append(errs, fmt.Errorf("model.language: %w", err))
	}
	if c.Activations != "exact" && c.Activations != "int8" {
		errs = append(errs, fmt.Errorf("model.activations: %q is not exact or int8", c.Activations))
	}
	switch c.Device {
	case "auto", string(CPU), string(CUDA):
	default:
		errs = append(errs, fmt.Errorf("model.device: %q is not auto, %s or %s", c.Device, CPU, CUDA))
	}
	switch c.Evidence.Policy {
	case Mark, Drop, Hold:
	default:
		errs = append(errs, fmt.Errorf("model.evidence.policy: %q is not %s, %s or %s", c.Evidence.Policy, Mark, Drop, Hold))
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
