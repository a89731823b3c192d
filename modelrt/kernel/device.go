package kernel

// #include <stdlib.h>
// #include "device.h"
// #include "ops.h"
import "C"

import (
	"errors"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"
)

// Element is the type of a device tensor's values, numbered as in ONNX.
type Element int

// The elements.
const (
	Float32  Element = 1
	Float16  Element = 10
	BFloat16 Element = 16
)

// Bytes is the size of a value.
func (e Element) Bytes() int {
	if e == Float32 {
		return 4
	}
	return 2
}

// Device is the memory that a session works in, from the session's own arena: on a GPU the GPU's, else the processor's.
// It is for one goroutine at a time, and must be closed before its session.
type Device struct {
	api, info, allocator unsafe.Pointer
	memory               []unsafe.Pointer
}

// OpenDevice opens the memory called name ("Cpu", "Cuda") of device id. library is the shared library of ONNX Runtime.
func OpenDevice(library string, s *ort.DynamicAdvancedSession, name string, id int) (*Device, error) {
	path, called := C.CString(library), C.CString(name)
	defer C.free(unsafe.Pointer(path))
	defer C.free(unsafe.Pointer(called))
	d := &Device{api: unsafe.Pointer(C.ops_api(path))}
	if d.api == nil {
		return nil, errors.New("ONNX Runtime is not loaded")
	}
	return d, said(C.device_open(d.api, sessionHandle(s), called, C.int(id), &d.info, &d.allocator))
}

// sessionHandle is the handle of a session, to which the wrapper has no way: it is the first field of what its first field points to.
func sessionHandle(s *ort.DynamicAdvancedSession) unsafe.Pointer {
	return *(*unsafe.Pointer)(*(*unsafe.Pointer)(unsafe.Pointer(s)))
}

func said(why *C.char) error {
	if why == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(why))
	return errors.New(C.GoString(why))
}

// Memory is a piece of a device's memory. It lasts until the device is closed. What it holds at first is anything.
type Memory struct {
	device *Device
	at     unsafe.Pointer
}

// Alloc takes bytes of memory.
func (d *Device) Alloc(bytes int) (Memory, error) {
	m := Memory{device: d}
	if err := said(C.device_alloc(d.api, d.allocator, C.size_t(bytes), &m.at)); err != nil {
		return Memory{}, err
	}
	d.memory = append(d.memory, m.at)
	return m, nil
}

// Close frees all memory of d. No tensor over it may be used any more.
func (d *Device) Close() {
	if d == nil || d.allocator == nil {
		return
	}
	for _, m := range d.memory {
		C.device_free(d.api, d.allocator, m)
	}
	C.device_close(d.api, d.info, d.allocator)
	*d = Device{}
}

// Operand is what a Run takes: a value of the wrapper, or a Tensor.
type Operand interface {
	GetInternals() *ort.ValueInternalData
}

// Tensor is a tensor in a device's memory.
type Tensor struct {
	api       unsafe.Pointer
	internals ort.ValueInternalData
}

// Tensor makes a tensor over the memory from value offset on.
func (m Memory) Tensor(offset int, e Element, shape ...int64) (*Tensor, error) {
	values := 1
	for _, n := range shape {
		values *= int(n)
	}
	t := &Tensor{api: m.device.api}
	var made unsafe.Pointer
	err := said(C.device_tensor(m.device.api, m.device.info, unsafe.Add(m.at, offset*e.Bytes()), C.size_t(values*e.Bytes()),
		(*C.int64_t)(unsafe.Pointer(&shape[0])), C.size_t(len(shape)), C.int(e), &made))
	if err != nil {
		return nil, err
	}
	*(*unsafe.Pointer)(unsafe.Pointer(&t.internals)) = made // its only field, which the wrapper keeps to itself
	return t, nil
}

// GetInternals is named as the wrapper's values name it.
func (t *Tensor) GetInternals() *ort.ValueInternalData { return &t.internals }

// Free frees the tensor and not its memory.
func (t *Tensor) Free() {
	if made := (*unsafe.Pointer)(unsafe.Pointer(&t.internals)); *made != nil {
		C.device_release(t.api, *made)
		*made = nil
	}
}

// LimitCPU makes an arena of at most bytes, from which the sessions with the entry session.use_env_allocators take their memory on the CPU.
// A process has one.
func LimitCPU(library string, bytes int64) error {
	path := C.CString(library)
	defer C.free(unsafe.Pointer(path))
	api := unsafe.Pointer(C.ops_api(path))
	if api == nil {
		return errors.New("ONNX Runtime is not loaded")
	}
	return said(C.device_limit(api, C.size_t(bytes)))
}
