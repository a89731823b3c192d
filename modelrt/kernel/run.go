package kernel

// #include <stdlib.h>
// #include "ops.h"
// #include "run.h"
import "C"

import (
	"errors"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"
)

// Run is a run of a session with fixed values, which can be repeated. The wrapper's Run makes slices of the values each time; this one
// makes nothing, which counts where a run is a token.
type Run struct {
	api, session unsafe.Pointer
	text         []*C.char // of the names; like the arrays it is C memory
	names, in    *[1 << 20]unsafe.Pointer
	outNames     *[1 << 20]unsafe.Pointer
	out          *[1 << 20]unsafe.Pointer
	ins, outs    C.int
}

// NewRun prepares a run of s. The values must outlive it; the outputs are allocated by the caller. library is the shared library of ONNX
// Runtime.
func NewRun[V Operand](library string, s *ort.DynamicAdvancedSession, inNames, outNames []string, in, out []V) (*Run, error) {
	path := C.CString(library)
	defer C.free(unsafe.Pointer(path))
	r := &Run{api: unsafe.Pointer(C.ops_api(path)), ins: C.int(len(in)), outs: C.int(len(out))}
	if r.api == nil || len(inNames) != len(in) || len(outNames) != len(out) || len(in) == 0 || len(out) == 0 {
		return nil, errors.New("ONNX Runtime is not loaded, or names and values are not the same number")
	}
	r.session = sessionHandle(s)
	array := func(n int) *[1 << 20]unsafe.Pointer { // zero, since Go's write barrier reads what is overwritten (cgo, "Passing pointers")
		return (*[1 << 20]unsafe.Pointer)(C.calloc(C.size_t(n), C.size_t(unsafe.Sizeof(uintptr(0)))))
	}
	r.names, r.in, r.outNames, r.out = array(len(in)), array(len(in)), array(len(out)), array(len(out))
	for i, v := range in {
		name := C.CString(inNames[i])
		r.text = append(r.text, name)
		r.names[i], r.in[i] = unsafe.Pointer(name), handle(v)
	}
	for i, v := range out {
		name := C.CString(outNames[i])
		r.text = append(r.text, name)
		r.outNames[i], r.out[i] = unsafe.Pointer(name), handle(v)
	}
	return r, nil
}

// handle is the OrtValue of a value: the first field of its internals.
func handle(v Operand) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(v.GetInternals())) }

// Do runs once.
func (r *Run) Do(o *ort.RunOptions) error {
	options := *(*unsafe.Pointer)(unsafe.Pointer(o))
	why := C.run_session(r.api, r.session, options, (**C.char)(unsafe.Pointer(r.names)), (*unsafe.Pointer)(unsafe.Pointer(r.in)), r.ins,
		(**C.char)(unsafe.Pointer(r.outNames)), (*unsafe.Pointer)(unsafe.Pointer(r.out)), r.outs)
	return said(why)
}

// Close frees what NewRun made, and none of the values.
func (r *Run) Close() {
	if r == nil {
		return
	}
	for _, n := range r.text {
		C.free(unsafe.Pointer(n))
	}
	for _, a := range []*[1 << 20]unsafe.Pointer{r.names, r.in, r.outNames, r.out} {
		C.free(unsafe.Pointer(a))
	}
	r.text = nil
}
