package kernel

/*
#include <dlfcn.h>
#include <stddef.h>

// mallinfo2 of glibc's malloc.h, which other C libraries do not have.
struct counts { size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };

static long long allocated(void) {
	struct counts (*ask)(void) = (struct counts (*)(void))dlsym(RTLD_DEFAULT, "mallinfo2");
	if (!ask)
		return -1;
	struct counts c = ask();
	return (long long)(c.uordblks + c.hblkhd);
}
*/
import "C"

// Allocated is how many bytes everything in this process that is not Go has from malloc and has not given back: tensors, sessions and options of
// ONNX Runtime, and what cgo copies. What was freed and waits in a thread's cache counts too. -1 where the C library does not tell.
func Allocated() int64 { return int64(C.allocated()) }
