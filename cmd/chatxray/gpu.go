package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"chatxray/modelrt"
	"chatxray/parts"
)

// tellCUDA tells, line by line, what of CUDA is here and whether it is used. Nothing of it makes the service unfit: it would run on the
// CPU, and where it must not, ONNX Runtime's line says so.
func tellCUDA(tell func(what, found string), runtime *modelrt.Runtime, device string) {
	provider := ""
	if library, err := parts.Path("onnxruntime-gpu"); err == nil {
		provider = filepath.Dir(library)
	}
	for _, line := range cudaLines(modelrt.FindCUDA(provider)) {
		tell(line[0], line[1])
	}
	switch {
	case runtime == nil:
	case runtime.Device() == modelrt.CUDA:
		tell("CUDA", "used")
	case device == string(modelrt.CPU):
		tell("CUDA", "not used: model.device is cpu")
	case provider == "":
		tell("CUDA", "not used: the run-time part onnxruntime-gpu is not here")
	default:
		tell("CUDA", "not used: "+runtime.Fallback())
	}
}

func cudaLines(f modelrt.CUDAFacts) (lines [][2]string) {
	add := func(what, format string, a ...any) { lines = append(lines, [2]string{what, fmt.Sprintf(format, a...)}) }
	switch {
	case f.Module == "" && f.DriverErr != nil && f.Driver == "":
		add("GPU driver", "none: /proc/driver/nvidia/version is absent, %v", f.DriverErr)
	case f.DriverErr != nil:
		add("GPU driver", "NVIDIA %s, but %v", module(f), f.DriverErr)
	default:
		add("GPU driver", "NVIDIA %s for CUDA up to %s, %d GPU(s)", module(f), f.Driver, f.Devices)
	}
	for i, g := range f.GPUs {
		add(fmt.Sprintf("GPU %d", i), "%s, %.1f GiB, %.1f GiB free", g.Name, float64(g.Total)/(1<<30), float64(g.Free)/(1<<30))
	}
	if f.GPUsErr != nil && (f.Module != "" || f.Devices > 0) {
		add("GPU memory", "unknown: %v", f.GPUsErr)
	}
	switch {
	case f.LibsErr != nil:
		add("CUDA libraries", "%v", f.LibsErr)
	case len(f.Missing) > 0:
		add("CUDA libraries", "%d of %d that ONNX Runtime needs do not load: %s", len(f.Missing), len(f.Wanted), strings.Join(f.Missing, ", "))
	default:
		add("CUDA libraries", "all here: %s", strings.Join(f.Wanted, ", "))
	}
	return lines
}

func module(f modelrt.CUDAFacts) string {
	if f.Module == "" {
		return "(no kernel module seen)"
	}
	return f.Module
}
