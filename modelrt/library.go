package modelrt

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>

// OrtApiBase of onnxruntime_c_api.h. Its two members are the part of the interface that never changes: through them a program
// finds out which version it has before it relies on anything else.
struct base {
	const void *(*get_api)(unsigned int version);
	const char *(*version)(void);
};

static const struct base *api_base(void *symbol) {
	return ((const struct base *(*)(void))symbol)();
}
static const char *library_version(const struct base *b) { return b->version(); }
*/
import "C"

import (
	"errors"
	"unsafe"
)

// libraryVersion loads the shared library at path and asks ONNX Runtime for its version. The library stays loaded.
func libraryVersion(path string) (string, error) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	handle := C.dlopen(p, C.RTLD_LAZY)
	if handle == nil {
		return "", errors.New(C.GoString(C.dlerror()))
	}
	name := C.CString("OrtGetApiBase")
	defer C.free(unsafe.Pointer(name))
	symbol := C.dlsym(handle, name)
	if symbol == nil {
		C.dlclose(handle)
		return "", errors.New("it has no OrtGetApiBase: it is not ONNX Runtime")
	}
	base := C.api_base(symbol)
	if base == nil {
		C.dlclose(handle)
		return "", errors.New("OrtGetApiBase gives nothing")
	}
	return C.GoString(C.library_version(base)), nil
}
