#ifndef CHATXRAY_ATTENTION_H
#define CHATXRAY_ATTENTION_H
#include <stdint.h>

// KEYS is how many keys stand side by side in the cache of keys, and what the other cache's head size is rounded up to.
// A head is no larger than MAX_DIM.
enum { KEYS = 16, MAX_DIM = 1024 };

// attention_args: T tokens of any slots of the caches, in any order but that of one slot ascending. heads are a multiple of kv_heads.
typedef struct attention_args {
	float *out;          // [T, heads*dim]
	const float *qkv;    // [T, (heads + 2*kv_heads)*dim]
	const float *cosine; // [T, rotary/2], halves of a head rotate against each other; 0 for none
	const float *sine;
	float *keys;   // [slots, kv_heads, capacity/KEYS, dim, KEYS]
	float *values; // [slots, kv_heads, capacity, dim rounded up to KEYS]
	const int32_t *slot, *at, *upto; // [T]: a token's slot, its place in it, and the place behind the last key that it sees
	int64_t tokens, heads, kv_heads, dim, rotary, capacity;
	int64_t window; // a token sees so many keys at most, its own the last; 0 for all
	float scale;
} attention_args;

// attention writes the tokens' keys and values into the caches, then each token's mixture of values, on the team. It returns -1 where it has no memory.
int attention(const attention_args *a);

// Elementwise work before a product. Each reads rows of x and writes rows of y of `wide` floats; where gate is set, rows of x are 2*wide,
// first the gates.
enum { BEFORE_NOTHING, BEFORE_RMS_NORM, BEFORE_LAYER_NORM, BEFORE_SILU_GATE, BEFORE_GELU_GATE, BEFORE_GELU_TANH_GATE, BEFORE_GELU, BEFORE_GELU_TANH,
	BEFORE_QUICK_GELU, BEFORE_RELU, BEFORES };
int before_gates(int kind);
void before(float *y, const float *x, int kind, const float *scale, const float *shift, float epsilon, int64_t rows, int64_t wide);

// best is the place of the largest of n values, of equal ones the first. NaN is smaller than everything.
int64_t best(const float *x, int64_t n);

// log_probability is x[j] - log sum exp x, as double.
double log_probability(const float *x, int64_t n, int64_t j);

#endif
