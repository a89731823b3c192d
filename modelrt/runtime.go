package modelrt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	ort "github.com/yalue/onnxruntime_go"

	"chatxray/pipeline"
)

// Device says where graphs run.
type Device string

// The devices.
const (
	Auto Device = ""     // CUDA where its libraries load, else the CPU
	CPU  Device = "cpu"  // the CPU only
	CUDA Device = "cuda" // CUDA, and an error where it does not load
)

// Runtime is ONNX Runtime, loaded. It lasts as long as the process and is safe for concurrent use.
type Runtime struct {
	library  string
	asked    Device
	version  string
	device   Device
	fallback string
	ordinal  int   // of the GPU
	limit    int64 // bytes that a graph may take of a GPU, or all graphs with an arena together of the CPU; 0 for none
}

var (
	started     *Runtime
	startedLock sync.Mutex
)

// The versions that speak API 24, the one that the wrapper asks for, up to the last that was tested.
const (
	firstMinor = 24
	lastMinor  = 30
)

// Start loads ONNX Runtime from the shared library at path and decides on the device. A process has one ONNX Runtime: a second
// Start with the same arguments returns the first one's Runtime, with others it is an error.
//
// Errors: ErrMissingPart where the library does not load, ErrUnsupported where its version is wrong or CUDA was demanded and does
// not load.
func Start(path string, device Device) (*Runtime, error) {
	startedLock.Lock()
	defer startedLock.Unlock()
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if started != nil {
		if started.library != path || started.asked != device {
			return nil, fmt.Errorf("%w: ONNX Runtime is already loaded from %s for device %q; a process has one", pipeline.ErrConflict, started.library, started.asked)
		}
		return started, nil
	}
	// ONNX Runtime 1.30 reports to its makers over the network unless this says no when its environment is made; nothing leaves this machine.
	if err := os.Setenv("ORT_DISABLE_TELEMETRY", "1"); err != nil {
		return nil, fmt.Errorf("%w: ONNX Runtime's telemetry cannot be turned off: %v", pipeline.ErrUnsupported, err)
	}
	version, err := libraryVersion(path)
	if err != nil {
		return nil, fmt.Errorf("%w: ONNX Runtime does not load from %s: %v; fetch the run-time parts again", pipeline.ErrMissingPart, path, err)
	}
	if err := checkVersion(version); err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	ort.SetSharedLibraryPath(path)
	if err := ort.InitializeEnvironment(ort.WithLogLevelFatal()); err != nil {
		return nil, fmt.Errorf("%w: ONNX Runtime %s does not start from %s: %v", pipeline.ErrMissingPart, version, path, err)
	}
	if err := ort.DisableTelemetry(); err != nil { // of other builds, which look at no variable
		ort.DestroyEnvironment()
		return nil, fmt.Errorf("%w: ONNX Runtime's telemetry cannot be turned off: %v", pipeline.ErrUnsupported, err)
	}
	r := &Runtime{library: path, asked: device, version: version, device: CPU}
	switch reason := cudaReason(device); {
	case reason == "":
		r.device = CUDA
	case device == CUDA:
		ort.DestroyEnvironment()
		return nil, fmt.Errorf("%w: CUDA was demanded and does not load: %s", pipeline.ErrUnsupported, reason)
	default:
		r.fallback = reason
	}
	started = r
	return r, nil
}

// Version is ONNX Runtime's version.
func (r *Runtime) Version() string { return r.version }

// Device is where graphs run: CPU or CUDA.
func (r *Runtime) Device() Device { return r.device }

// Fallback says in ONNX Runtime's words why graphs run on the CPU though Auto was asked for; else it is empty.
func (r *Runtime) Fallback() string {
	if r.asked == CPU {
		return ""
	}
	return r.fallback
}

// onCPU is the same runtime for a bundle or a graph that does not work on CUDA.
func (r *Runtime) onCPU() *Runtime {
	c := *r
	c.device, c.ordinal, c.limit = CPU, 0, 0
	return &c
}

// on is the same runtime for the GPU of that number, with a limit of memory.
func (r *Runtime) on(ordinal int, limit int64) *Runtime {
	c := *r
	c.ordinal, c.limit = ordinal, limit
	return &c
}

// where names the device in messages.
func (r *Runtime) where() string {
	if r.device == CUDA {
		return "GPU " + strconv.Itoa(r.ordinal)
	}
	return "this machine"
}

// memory is ONNX Runtime's name of the memory that graphs work in.
func (r *Runtime) memory() (name string, id int) {
	if r.device == CUDA {
		return "Cuda", r.ordinal
	}
	return "Cpu", 0
}

func checkVersion(version string) error {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) >= 2 && parts[0] == "1" {
		if minor, err := strconv.Atoi(parts[1]); err == nil && minor >= firstMinor {
			return nil
		}
	}
	return fmt.Errorf("%w: this is ONNX Runtime %s; versions 1.%d to 1.%d work, fetch the run-time parts again", pipeline.ErrUnsupported, version, firstMinor, lastMinor)
}

// cudaReason tries to load the CUDA provider. It returns "" where that works.
func cudaReason(device Device) string {
	if device == CPU {
		return "the CPU was asked for"
	}
	o, err := ort.NewSessionOptions()
	if err != nil {
		return err.Error()
	}
	defer o.Destroy()
	if err := appendCUDA(o, cudaOptions(0, 0)); err != nil {
		return oneLine(err)
	}
	return ""
}

// cudaOptions are the CUDA provider's own words. An arena that takes what is asked for, not the next power of two, leaves room for others;
// the exhaustive search for convolutions would take seconds for each size of image.
func cudaOptions(ordinal int, limit int64) map[string]string {
	o := map[string]string{"device_id": strconv.Itoa(ordinal), "arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
	if limit > 0 {
		o["gpu_mem_limit"] = strconv.FormatInt(limit, 10)
	}
	return o
}

func appendCUDA(o *ort.SessionOptions, options map[string]string) error {
	cuda, err := ort.NewCUDAProviderOptions()
	if err != nil {
		return err
	}
	defer cuda.Destroy()
	if err := cuda.Update(options); err != nil {
		return err
	}
	return o.AppendExecutionProviderCUDA(cuda)
}

// oneLine keeps ONNX Runtime's many-line messages out of the middle of our sentences.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// sessionOptions for a graph that runs on threads threads. The caller destroys them.
func (r *Runtime) sessionOptions(threads int, spin bool) (*ort.SessionOptions, error) {
	o, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	spinning := "0"
	if spin {
		spinning = "1"
	}
	err = errors.Join(
		o.SetIntraOpNumThreads(threads),
		o.SetInterOpNumThreads(1),
		o.SetLogSeverityLevel(ort.LoggingLevelFatal),
		o.AddSessionConfigEntry("session.intra_op.allow_spinning", spinning),
		o.AddSessionConfigEntry("session.force_spinning_stop", "1"),
	)
	if err == nil && r.device == CUDA {
		err = appendCUDA(o, cudaOptions(r.ordinal, r.limit))
	}
	if err != nil {
		o.Destroy()
		return nil, err
	}
	return o, nil
}
