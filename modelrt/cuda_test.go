package modelrt

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// shared compiles a shared library called name into dir.
func shared(t *testing.T, dir, name, source string, more ...string) {
	t.Helper()
	put(t, dir, name+".c", []byte(source))
	args := append([]string{"-shared", "-fPIC", "-Wl,-soname," + name, "-Wl,--no-as-needed", "-o", filepath.Join(dir, name), filepath.Join(dir, name+".c")}, more...)
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v: %s", err, out)
	}
}

const moduleText = `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release Build  (root@host)
GCC version:  gcc version 13.3.0
`

func TestFindCUDAWithNothing(t *testing.T) {
	f := cudaPlaces{root: t.TempDir(), libraries: t.TempDir()}.find("")
	if f.Module != "" || f.Driver != "" || f.Devices != 0 || f.DriverErr == nil || !strings.Contains(f.DriverErr.Error(), "libcuda.so.1") ||
		f.GPUs != nil || f.GPUsErr == nil || f.LibsErr == nil || !strings.Contains(f.LibsErr.Error(), "make parts") {
		t.Errorf("%+v", f)
	}
	if f = (cudaPlaces{root: t.TempDir(), libraries: t.TempDir()}).find(t.TempDir()); f.LibsErr == nil || f.Wanted != nil {
		t.Errorf("%+v", f)
	}
	FindCUDA("") // whatever is here, it comes back
}

// A driver, two GPUs and a provider with one library that is not there.
func TestFindCUDA(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "proc/driver/nvidia"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, root, "proc/driver/nvidia/version", []byte(moduleText))
	shared(t, dir, "libcuda.so.1", `
int cuInit(unsigned f) { return 0; }
int cuDriverGetVersion(int *v) { *v = 13010; return 0; }
int cuDeviceGetCount(int *n) { *n = 2; return 0; }`)
	shared(t, dir, "libnvidia-ml.so.1", `
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)(i + 1ul); return 0; }
int nvmlDeviceGetName(void *d, char *name, unsigned size) { strncpy(name, d == (void *)1 ? "NVIDIA H200" : "NVIDIA L4", size); return 0; }
int nvmlDeviceGetMemoryInfo(void *d, unsigned long long *m) { m[0] = 150754820096ull; m[1] = 1ull << 36; m[2] = 0; return 0; }`)
	// The loader finds libcudart by the provider's own path, but asked for by name it does not.
	shared(t, dir, "libcudart_of_nobody.so.13", `int x;`)
	shared(t, dir, "libonnxruntime_providers_cuda.so", `int y;`, filepath.Join(dir, "libcudart_of_nobody.so.13"))
	f := cudaPlaces{root: root, libraries: dir}.find(dir)
	if f.Module != "580.159.03" || f.Driver != "13.1" || f.Devices != 2 || f.DriverErr != nil || f.GPUsErr != nil || f.LibsErr != nil {
		t.Errorf("%+v", f)
	}
	if !slices.Equal(f.GPUs, []GPU{{"NVIDIA H200", 150754820096, 1 << 36}, {"NVIDIA L4", 150754820096, 1 << 36}}) {
		t.Errorf("%+v", f.GPUs)
	}
	if !slices.Equal(f.Wanted, []string{"libcudart_of_nobody.so.13", cudnn}) || len(f.Missing) == 0 || !strings.Contains(f.Missing[0], "libcudart_of_nobody.so.13") {
		t.Errorf("%v, %v", f.Wanted, f.Missing)
	}
}

// A library without its module, one that is no driver, and NVML that fails halfway.
func TestFindCUDABroken(t *testing.T) {
	dir := t.TempDir()
	shared(t, dir, "libcuda.so.1", `
int cuInit(unsigned f) { return 100; }
int cuDriverGetVersion(int *v) { *v = 12080; return 0; }
int cuDeviceGetCount(int *n) { return 3; }`)
	shared(t, dir, "libnvidia-ml.so.1", `
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { return 15; }
int nvmlDeviceGetName(void *d, char *name, unsigned size) { return 0; }
int nvmlDeviceGetMemoryInfo(void *d, unsigned long long *m) { return 0; }`)
	f := cudaPlaces{root: dir, libraries: dir}.find("")
	if f.Driver != "12.8" || f.DriverErr == nil || !strings.Contains(f.DriverErr.Error(), "error 100 (no device)") {
		t.Errorf("%+v", f)
	}
	if f.GPUsErr == nil || !strings.Contains(f.GPUsErr.Error(), "error 15 about GPU 0") {
		t.Errorf("%+v", f)
	}
	other := t.TempDir()
	shared(t, other, "libcuda.so.1", `int x;`)
	shared(t, other, "libnvidia-ml.so.1", `int x;`)
	f = cudaPlaces{root: other, libraries: other}.find("")
	if f.DriverErr == nil || !strings.Contains(f.DriverErr.Error(), "not CUDA's driver") || f.GPUsErr == nil {
		t.Errorf("%+v", f)
	}
}
