package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"chatxray/modelrt"
)

func TestCUDALines(t *testing.T) {
	gone := errors.New("libcuda.so.1: cannot open shared object file")
	for name, tt := range map[string]struct {
		facts modelrt.CUDAFacts
		want  []string
	}{
		"nothing": {modelrt.CUDAFacts{DriverErr: gone, GPUsErr: gone, LibsErr: errors.New("fetch it")},
			[]string{"GPU driver: none: /proc/driver/nvidia/version is absent, libcuda.so.1", "CUDA libraries: fetch it"}},
		"module without library": {modelrt.CUDAFacts{Module: "580.1", DriverErr: gone, GPUsErr: gone, LibsErr: errors.New("fetch it")},
			[]string{"GPU driver: NVIDIA 580.1, but libcuda.so.1", "GPU memory: unknown: ", "CUDA libraries: fetch it"}},
		"all": {modelrt.CUDAFacts{Module: "580.1", Driver: "13.0", Devices: 1, GPUs: []modelrt.GPU{{Name: "NVIDIA H200", Total: 140 << 30, Free: 139 << 30}}, Wanted: []string{"libcublas.so.13", "libcudart.so.13"}},
			[]string{"GPU driver: NVIDIA 580.1 for CUDA up to 13.0, 1 GPU(s)", "GPU 0: NVIDIA H200, 140.0 GiB, 139.0 GiB free", "CUDA libraries: all here: libcublas.so.13, libcudart.so.13"}},
		"a library less": {modelrt.CUDAFacts{Driver: "13.0", Devices: 1, Wanted: []string{"a", "b"}, Missing: []string{"libcudnn.so.9: cannot open"}},
			[]string{"GPU driver: NVIDIA (no kernel module seen) for CUDA", "CUDA libraries: 1 of 2 that ONNX Runtime needs do not load: libcudnn.so.9"}},
	} {
		t.Run(name, func(t *testing.T) {
			lines := cudaLines(tt.facts)
			if len(lines) != len(tt.want) {
				t.Fatalf("%q", lines)
			}
			for i, line := range lines {
				if got := fmt.Sprintf("%s: %s", line[0], line[1]); !strings.HasPrefix(got, tt.want[i]) {
					t.Errorf("%q, want %q", got, tt.want[i])
				}
			}
		})
	}
}
