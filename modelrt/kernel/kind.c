#include "kind.h"
#include <stdatomic.h>

static _Atomic int now = KIND_PLAIN;

int kind_has(int kind) {
	switch (kind) {
	case KIND_PLAIN:
		return 1;
#if defined(__x86_64__)
	case KIND_AVX2:
		return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
	case KIND_AVX512:
		return kind_has(KIND_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
			   __builtin_cpu_supports("avx512dq");
	case KIND_VNNI:
		return kind_has(KIND_AVX512) && __builtin_cpu_supports("avx512vnni");
#endif
	}
	return 0;
}

int kind_now(void) { return atomic_load_explicit(&now, memory_order_relaxed); }

int kind_use(int kind) {
	if (!kind_has(kind))
		return -1;
	atomic_store(&now, kind);
	return 0;
}

__attribute__((constructor)) static void choose(void) {
#if defined(__x86_64__)
	__builtin_cpu_init();
#endif
	for (int kind = KINDS - 1; kind_use(kind) != 0; kind--)
		;
}
