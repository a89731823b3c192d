// Package kernel holds operators of our own for ONNX Runtime on the CPU, in the domain "chatxray": products with packed matrices, some
// of them exactly as a GGUF file has them, attention over a cache of many texts, and the look-up of embeddings. A decoder made of
// them (form "flat" of a bundle) reads its weights about as fast as memory gives them, and takes tokens of any texts side by side.
//
// The C files say what the operators compute; ops.c says which inputs and attributes they have.
package kernel

// #cgo CFLAGS: -O3
// #cgo LDFLAGS: -ldl -lpthread -lm
// #include <stdlib.h>
// #include "attention.h"
// #include "linear.h"
// #include "ops.h"
// #include "team.h"
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"
)

// Form is how a packed matrix keeps its values (linear.h).
type Form int

// The forms.
const (
	F32 Form = C.FORM_F32
	Q41 Form = C.FORM_Q4_1
	Q80 Form = C.FORM_Q8_0
)

// Panel is how many columns stand side by side in a packed matrix.
const Panel = C.PANEL

// KeyBlock is what the capacity of a cache and the head size of its values are multiples of.
const KeyBlock = C.KEYS

// Bytes is the size of a packed matrix [k, n], -1 where there is none of this shape.
func (f Form) Bytes(k, n int) int64 {
	return int64(C.packed_bytes(C.int(f), C.int64_t(k), C.int64_t(n)))
}

// Register gives session options the operators. library is the shared library of ONNX Runtime that the process has loaded.
func Register(o *ort.SessionOptions, library string) error {
	path := C.CString(library)
	defer C.free(unsafe.Pointer(path))
	api := C.ops_api(path)
	if api == nil {
		return errors.New("ONNX Runtime is not loaded, or of a version that the operators were not made for")
	}
	// The wrapper has no call for operators that are part of the program. Its options are one pointer to ONNX Runtime's.
	options := *(*unsafe.Pointer)(unsafe.Pointer(o))
	if why := C.ops_register(api, options); why != nil {
		defer C.free(unsafe.Pointer(why))
		return fmt.Errorf("registering the operators: %s", C.GoString(why))
	}
	return nil
}

// Start makes sure that the operators' loops have so many threads, the caller's included. Threads last as long as the process and
// sleep when there is nothing to do.
func Start(threads int) { C.team_start(C.int(threads)) }

// Best returns the likeliest token, of equal ones the first, and the natural logarithm of its probability.
func Best(logits []float32) (id int32, logProbability float64) {
	id = int32(C.best((*C.float)(unsafe.Pointer(&logits[0])), C.int64_t(len(logits))))
	return id, LogProbability(logits, id)
}

// LogProbability is the natural logarithm of token id's probability under the logits.
func LogProbability(logits []float32, id int32) float64 {
	_ = logits[id]
	return float64(C.log_probability((*C.float)(unsafe.Pointer(&logits[0])), C.int64_t(len(logits)), C.int64_t(id)))
}

// Linear computes y [m, n] = x [m, k] W, or adds it to y. w is packed in the form f.
func Linear(y, x []float32, w []byte, f Form, m, k, n int, add bool) error {
	if m < 1 || int64(len(w)) != f.Bytes(k, n) || len(x) != m*k || len(y) != m*n {
		return fmt.Errorf("a product of %d×%d and %d×%d with %d, %d and %d values", m, k, k, n, len(x), len(w), len(y))
	}
	plus := C.int(0)
	if add {
		plus = 1
	}
	C.linear((*C.float)(unsafe.Pointer(&y[0])), (*C.float)(unsafe.Pointer(&x[0])), unsafe.Pointer(&w[0]), C.int(f), C.int64_t(m), C.int64_t(k), C.int64_t(n), plus)
	return nil
}

// PackF32 packs a row-major matrix [k, n].
func PackF32(in []float32, k, n int) []float32 {
	out := make([]float32, F32.Bytes(k, n)/4)
	C.pack_f32((*C.float)(unsafe.Pointer(&out[0])), (*C.float)(unsafe.Pointer(&in[0])), C.int64_t(k), C.int64_t(n))
	return out
}
