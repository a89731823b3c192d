// Package kernel holds operators of our own for ONNX Runtime on the CPU, in the domain "chatxray": products with packed matrices, some
// of them exactly as a GGUF file has them, attention over a cache of many texts, and the look-up of embeddings. A decoder made of
// them (a form of the kind "flat" of a bundle) takes tokens of any texts side by side, and each has the same bits as alone.
//
// The C files say what the operators compute; ops.c says which inputs and attributes they have.
package kernel

// #cgo CFLAGS: -O3
// #cgo LDFLAGS: -ldl -lpthread -lm
// #include <stdlib.h>
// #include "attention.h"
// #include "kind.h"
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

// Register gives session options the operators. library is the shared library of ONNX Runtime that the process has loaded. With eightBits the
// products with matrices of blocks round their activations to 8 bits.
func Register(o *ort.SessionOptions, library string, eightBits bool) error {
	if eightBits {
		if err := o.AddSessionConfigEntry("chatxray.activations", "int8"); err != nil {
			return err
		}
	}
	path := C.CString(library)
	defer C.free(unsafe.Pointer(path))
	api := C.ops_api(path)
	if api == nil {
		return errors.New("ONNX Runtime is not loaded, or of a version that the operators were not made for")
	}
	// The wrapper has no call for operators that are part of the program. Its options are one pointer to ONNX Runtime's.
	options := *(*unsafe.Pointer)(unsafe.Pointer(o))
	var why [512]C.char
	if C.ops_register(api, options, &why[0], C.size_t(len(why))) != 0 {
		return fmt.Errorf("registering the operators: %s", C.GoString(&why[0]))
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

// Linear computes y [m, n] = x [m, k] W, or adds it to y. w is packed in the form f, at a multiple of 4.
func Linear(y, x []float32, w []byte, f Form, m, k, n int, add bool) error {
	return product(false, y, x, w, f, m, k, n, add)
}

// Linear8 is Linear for Q41 and Q80 with x rounded to 8 bits (linear.h).
func Linear8(y, x []float32, w []byte, f Form, m, k, n int, add bool) error {
	if f == F32 {
		return errors.New("a matrix without blocks has no product in 8 bits")
	}
	return product(true, y, x, w, f, m, k, n, add)
}

func product(eight bool, y, x []float32, w []byte, f Form, m, k, n int, add bool) error {
	if m < 1 || f.Bytes(k, n) < 0 || int64(len(w)) != f.Bytes(k, n) || len(x) != m*k || len(y) != m*n || uintptr(unsafe.Pointer(&w[0]))%4 != 0 {
		return fmt.Errorf("a product of %d×%d and %d×%d with %d, %d and %d values", m, k, k, n, len(x), len(w), len(y))
	}
	plus := C.int(0)
	if add {
		plus = 1
	}
	var failed C.int
	if eight {
		failed = C.linear8(floats(y), floats(x), unsafe.Pointer(&w[0]), C.int(f), C.int64_t(m), C.int64_t(k), C.int64_t(n), plus)
	} else {
		failed = C.linear(floats(y), floats(x), unsafe.Pointer(&w[0]), C.int(f), C.int64_t(m), C.int64_t(k), C.int64_t(n), plus)
	}
	if failed != 0 {
		return errors.New("no memory for a product")
	}
	return nil
}

// PackF32 packs a row-major matrix [k, n].
func PackF32(in []float32, k, n int) []float32 {
	out := make([]float32, F32.Bytes(k, n)/4)
	_ = in[k*n-1]
	C.pack_f32(floats(out), floats(in), C.int64_t(k), C.int64_t(n))
	return out
}

// Column returns column j of a packed matrix [k, n].
func Column(w []byte, f Form, k, n, j int) ([]float32, error) {
	if f.Bytes(k, n) < 0 || int64(len(w)) != f.Bytes(k, n) || j < 0 || j >= n || uintptr(unsafe.Pointer(&w[0]))%4 != 0 {
		return nil, fmt.Errorf("column %d of a matrix %d×%d of %d bytes", j, k, n, len(w))
	}
	out := make([]float32, k)
	C.packed_column(floats(out), unsafe.Pointer(&w[0]), C.int(f), C.int64_t(k), C.int64_t(j))
	return out, nil
}

func floats(v []float32) *C.float { return (*C.float)(unsafe.Pointer(unsafe.SliceData(v))) }

// kinds names the kinds of processor that loops are compiled for and that this one is; the last is the one in use.
func kinds() (names []string) {
	for kind, name := range []string{"plain", "avx2", "avx512", "vnni"} {
		if C.kind_has(C.int(kind)) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// useKind takes the loops of kinds()[i], for tests. Nothing may run meanwhile.
func useKind(i int) { C.kind_use(C.int(i)) }
