package modelrt

/*
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// CUDA's driver interface (cuda.h) and NVML's (nvml.h), as far as they are asked. Both give 0 where all is well.
static int cuda_ask(void *library, int *version, int *devices) {
	int (*init)(unsigned) = (int (*)(unsigned))dlsym(library, "cuInit");
	int (*driver_version)(int *) = (int (*)(int *))dlsym(library, "cuDriverGetVersion");
	int (*count)(int *) = (int (*)(int *))dlsym(library, "cuDeviceGetCount");
	if (!init || !driver_version || !count)
		return -1;
	int wrong = driver_version(version);
	if (!wrong)
		wrong = init(0);
	return wrong ? wrong : count(devices);
}

struct memory { unsigned long long total, free, used; }; // nvmlMemory_t, bytes

static int nvml_start(void *library, unsigned *devices) {
	int (*init)(void) = (int (*)(void))dlsym(library, "nvmlInit_v2");
	int (*count)(unsigned *) = (int (*)(unsigned *))dlsym(library, "nvmlDeviceGetCount_v2");
	if (!init || !count)
		return -1;
	int wrong = init();
	return wrong ? wrong : count(devices);
}

static int nvml_device(void *library, unsigned i, char *name, unsigned size, struct memory *m) {
	int (*by_index)(unsigned, void **) = (int (*)(unsigned, void **))dlsym(library, "nvmlDeviceGetHandleByIndex_v2");
	int (*get_name)(void *, char *, unsigned) = (int (*)(void *, char *, unsigned))dlsym(library, "nvmlDeviceGetName");
	int (*get_memory)(void *, struct memory *) = (int (*)(void *, struct memory *))dlsym(library, "nvmlDeviceGetMemoryInfo");
	void *device = 0;
	if (!by_index || !get_name || !get_memory)
		return -1;
	int wrong = by_index(i, &device);
	if (!wrong)
		wrong = get_name(device, name, size);
	return wrong ? wrong : get_memory(device, m);
}

static void nvml_stop(void *library) {
	int (*shutdown)(void) = (int (*)(void))dlsym(library, "nvmlShutdown");
	if (shutdown)
		shutdown();
}
*/
import "C"

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unsafe"
)

// GPU is one that NVML knows of.
type GPU struct {
	Name        string
	Total, Free int64 // bytes of memory
}

// CUDAFacts is what of CUDA a machine has. A field that could not be found out has its reason beside it.
type CUDAFacts struct {
	Module    string // the kernel module's version; empty where there is none
	Driver    string // the newest CUDA that the driver serves, such as "13.0"
	Devices   int    // that CUDA sees
	DriverErr error
	GPUs      []GPU
	GPUsErr   error
	Wanted    []string // libraries that ONNX Runtime's CUDA provider is linked with, and cuDNN
	Missing   []string // of them: the name where it is not found, else the loader's words
	LibsErr   error
}

// cudaPlaces is where FindCUDA looks: "" is where the system has them.
type cudaPlaces struct {
	root      string // of /proc
	libraries string // folder of libcuda.so.1 and libnvidia-ml.so.1
}

// FindCUDA looks at what there is of CUDA. provider is the folder of ONNX Runtime's GPU libraries; empty where they are not here. It starts
// nothing on a GPU.
func FindCUDA(provider string) CUDAFacts { return cudaPlaces{}.find(provider) }

var moduleVersion = regexp.MustCompile(`Kernel Module.*?(\d+\.\d+(\.\d+)*)`)

func (p cudaPlaces) find(provider string) (f CUDAFacts) {
	if b, err := os.ReadFile(filepath.Join("/", p.root, "proc/driver/nvidia/version")); err == nil {
		f.Module = "of unknown version"
		if m := moduleVersion.FindSubmatch(b); m != nil {
			f.Module = string(m[1])
		}
	}
	f.Driver, f.Devices, f.DriverErr = p.driver()
	f.GPUs, f.GPUsErr = p.gpus()
	if provider == "" {
		f.LibsErr = errors.New("the run-time part onnxruntime-gpu is not here; fetch it: GPU=1 make parts")
		return f
	}
	f.Wanted, f.Missing, f.LibsErr = linked(filepath.Join(provider, "libonnxruntime_providers_cuda.so"))
	return f
}

func (p cudaPlaces) open(name string) (unsafe.Pointer, error) {
	if p.libraries != "" {
		name = filepath.Join(p.libraries, name)
	}
	return openLibrary(name)
}

func openLibrary(name string) (unsafe.Pointer, error) {
	c := C.CString(name)
	defer C.free(unsafe.Pointer(c))
	if handle := C.dlopen(c, C.RTLD_LAZY); handle != nil {
		return handle, nil
	}
	return nil, errors.New(C.GoString(C.dlerror()))
}

func (p cudaPlaces) driver() (version string, devices int, err error) {
	library, err := p.open("libcuda.so.1")
	if err != nil {
		return "", 0, err
	}
	defer C.dlclose(library)
	var v, n C.int
	if wrong := C.cuda_ask(library, &v, &n); wrong != 0 {
		err = fmt.Errorf("libcuda.so.1 answers with error %d (%s)", wrong, cudaErrors[int(wrong)])
	}
	if v > 0 {
		version = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
	}
	return version, int(n), err
}

// cudaErrors are the values of CUresult (cuda.h) that a start may meet.
var cudaErrors = map[int]string{
	-1: "it is not CUDA's driver", 1: "invalid value", 2: "out of memory", 3: "not initialized", 34: "it is the stub for linking, not the driver", 46: "device unavailable",
	100: "no device", 101: "invalid device", 800: "not permitted", 803: "the driver's library does not fit the kernel module", 804: "compatibility mode is not for this GPU", 999: "unknown",
}

func (p cudaPlaces) gpus() (list []GPU, err error) {
	library, err := p.open("libnvidia-ml.so.1")
	if err != nil {
		return nil, err
	}
	defer C.dlclose(library)
	var n C.uint
	if wrong := C.nvml_start(library, &n); wrong != 0 {
		return nil, fmt.Errorf("libnvidia-ml.so.1 answers with error %d", wrong)
	}
	defer C.nvml_stop(library)
	for i := range n {
		var name [128]C.char
		var m C.struct_memory
		if wrong := C.nvml_device(library, i, &name[0], C.uint(len(name)), &m); wrong != 0 {
			return list, fmt.Errorf("libnvidia-ml.so.1 answers with error %d about GPU %d", wrong, i)
		}
		list = append(list, GPU{C.GoString(&name[0]), int64(m.total), int64(m.free)})
	}
	return list, nil
}

// cudnn is not linked but loaded with the first convolution, which vision graphs have.
const cudnn = "libcudnn.so.9"

// linked are the libraries that the one at path is linked with, and those of them that do not load. The C library's own are left out.
func linked(path string) (wanted, missing []string, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	all, err := f.ImportedLibraries()
	for _, name := range append(all, cudnn) {
		if strings.HasPrefix(name, "libcu") || strings.HasPrefix(name, "libnv") {
			wanted = append(wanted, name)
			if library, err := openLibrary(name); err != nil {
				missing = append(missing, strings.TrimSuffix(err.Error(), ": cannot open shared object file: No such file or directory"))
			} else {
				C.dlclose(library)
			}
		}
	}
	return wanted, missing, err
}
