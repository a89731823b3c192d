package modelrt

import (
	"fmt"
	"strings"
	"sync"

	ort "github.com/yalue/onnxruntime_go"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// memoryError is a run that did not get the memory it needs. The device is as it was before: with less to do the next run may get it.
type memoryError struct{ where, detail string }

func (e *memoryError) Error() string {
	return fmt.Sprintf("%v: the memory of %s does not suffice for this request beside the others; try again later, or set fewer model.texts: %s", pipeline.ErrBusy, e.where, e.detail)
}

func (e *memoryError) Unwrap() error { return pipeline.ErrBusy }

// What ONNX Runtime (bfc_arena.cc, allocator.cc), CUDA, cuBLAS and cuDNN say when memory is out.
var exhaustion = []string{
	"failed to allocate memory", "smaller than requested bytes", "bad_alloc", "out of memory", "out_of_memory", "cudaerrormemoryallocation",
	"cublas_status_alloc_failed", "cublas failure 3", "cudnn_status_alloc_failed", "cudnn_status_internal_error_host_allocation_failed",
	"cudnn_status_internal_error_device_allocation_failed", "cufft_alloc_failed",
}

// exhausted says whether an error of ONNX Runtime is that memory is out.
func exhausted(err error) bool {
	said := strings.ToLower(err.Error())
	for _, words := range exhaustion {
		if strings.Contains(said, words) {
			return true
		}
	}
	return false
}

var limited struct {
	sync.Mutex
	bytes int64
}

// limitCPU gives a session the process's limited memory, which is made with the first.
func (r *Runtime) limitCPU(o *ort.SessionOptions) error {
	limited.Lock()
	defer limited.Unlock()
	switch {
	case limited.bytes == 0:
		if err := kernel.LimitCPU(r.library, r.limit); err != nil {
			return fmt.Errorf("%w: ONNX Runtime takes no limit of memory: %s", pipeline.ErrUnsupported, oneLine(err))
		}
		limited.bytes = r.limit
	case limited.bytes != r.limit:
		return fmt.Errorf("%w: ONNX Runtime has a limit of %d MB in this process already", pipeline.ErrConflict, limited.bytes>>20)
	}
	return o.AddSessionConfigEntry("session.use_env_allocators", "1")
}
