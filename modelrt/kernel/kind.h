#ifndef CHATXRAY_KIND_H
#define CHATXRAY_KIND_H

// The loops are compiled for several kinds of processor; the best one that this processor is runs. KIND_PLAIN is what the compiler
// makes for any processor of the architecture (on arm64 that is its vector unit).
enum { KIND_PLAIN, KIND_AVX2, KIND_AVX512, KIND_VNNI, KINDS };

// kind_now is the kind in use, never negative.
int kind_now(void);

// kind_has says whether this processor is of a kind.
int kind_has(int kind);

// kind_use changes the kind in use, for tests. It returns -1 where the processor is not of the kind. No loop may run meanwhile.
int kind_use(int kind);

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
// NAME is a name of one kind, in a file that is included once for each.
#define NAME(x) JOIN(x, KIND)

// BEGIN_VNNI, BEGIN_AVX512, BEGIN_AVX2 ... END compile what stands between for that kind.
#if defined(__clang__)
#define BEGIN_VNNI _Pragma("clang attribute push(__attribute__((target(\"avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,f16c,fma,avx2\"))), apply_to = function)")
#define BEGIN_AVX512 _Pragma("clang attribute push(__attribute__((target(\"avx512f,avx512bw,avx512vl,avx512dq,f16c,fma,avx2\"))), apply_to = function)")
#define BEGIN_AVX2 _Pragma("clang attribute push(__attribute__((target(\"avx2,f16c,fma\"))), apply_to = function)")
#define END _Pragma("clang attribute pop")
#else
#define BEGIN_VNNI _Pragma("GCC push_options") _Pragma("GCC target(\"avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,f16c,fma,avx2\")")
#define BEGIN_AVX512 _Pragma("GCC push_options") _Pragma("GCC target(\"avx512f,avx512bw,avx512vl,avx512dq,f16c,fma,avx2\")")
#define BEGIN_AVX2 _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,f16c,fma\")")
#define END _Pragma("GCC pop_options")
#endif

#endif
