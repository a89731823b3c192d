#include "attention.h"
#include "kind.h"
#include "team.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t padded(int64_t dim) { return (dim + KEYS - 1) / KEYS * KEYS; }

// A token's query is rotated into q, its key and value into the caches.
static void place(const attention_args *a, float *q, int64_t t) {
	const int64_t dim = a->dim, half = a->rotary / 2, pad = padded(dim);
	const float *from = a->qkv + t * (a->heads + 2 * a->kv_heads) * dim;
	float key[MAX_DIM];
	for (int64_t h = 0; h < a->heads + a->kv_heads; h++, from += dim) {
		float *to = h < a->heads ? q + h * dim : key;
		memcpy(to, from, dim * sizeof(float));
		for (int64_t i = 0; a->cosine && i < half; i++) {
			const float c = a->cosine[t * half + i], s = a->sine[t * half + i];
			to[i] = from[i] * c - from[i + half] * s;
			to[i + half] = from[i + half] * c + from[i] * s;
		}
		if (h < a->heads)
			continue;
		float *k = a->keys + ((a->slot[t] * a->kv_heads + h - a->heads) * (a->capacity / KEYS) + a->at[t] / KEYS) * dim * KEYS + a->at[t] % KEYS;
		for (int64_t i = 0; i < dim; i++)
			k[i * KEYS] = key[i];
	}
	for (int64_t h = 0; h < a->kv_heads; h++, from += dim) {
		float *v = a->values + ((a->slot[t] * a->kv_heads + h) * a->capacity + a->at[t]) * pad;
		memcpy(v, from, dim * sizeof(float));
		memset(v + dim, 0, (pad - dim) * sizeof(float));
	}
}

typedef struct attention_job {
	const attention_args *a;
	float *q; // [T, heads*dim]
	_Atomic int failed;
} attention_job;

static void place_body(void *arg, int64_t from, int64_t to) {
	attention_job *j = arg;
	for (int64_t t = from; t < to; t++)
		place(j->a, j->q + t * j->a->heads * j->a->dim, t);
}

// Memory is fetched so many bytes before its use: a processor's own prefetching stops at the end of each page.
enum { AHEAD = 4 << 10 };

#if defined(__x86_64__)
#include <immintrin.h>
BEGIN_AVX512
#define KIND _avx512
#define LANES 16
#include "attention_lanes.h"
#undef KIND
#undef LANES
END
BEGIN_AVX2
#define KIND _avx2
#define LANES 8
#include "attention_lanes.h"
#undef KIND
#undef LANES
END
#endif
#define KIND _plain
#define LANES 4
#include "attention_lanes.h"

typedef struct loops {
	team_body mix;
	void (*before)(float *, const float *, int, const float *, const float *, float, int64_t, int64_t);
	double (*log_probability)(const float *, int64_t, int64_t);
	int64_t (*best)(const float *, int64_t);
} loops;

static const loops kinds[KINDS] = {
	[KIND_PLAIN] = {mix_body_plain, before_plain, log_probability_plain, best_plain},
#if defined(__x86_64__)
	[KIND_AVX2] = {mix_body_avx2, before_avx2, log_probability_avx2, best_avx2},
	[KIND_AVX512] = {mix_body_avx512, before_avx512, log_probability_avx512, best_avx512},
	[KIND_VNNI] = {mix_body_avx512, before_avx512, log_probability_avx512, best_avx512},
#endif
};

int attention(const attention_args *a) {
	if (a->tokens == 0)
		return 0;
	attention_job j = {.a = a, .q = malloc(a->tokens * a->heads * a->dim * sizeof(float))};
	if (!j.q)
		return -1;
	team_run(place_body, &j, a->tokens, 16);
	const int64_t items = a->tokens * a->kv_heads;
	const int64_t grain = items / (8 * team_size());
	team_run(kinds[kind_now()].mix, &j, items, grain > 0 ? grain : 1);
	free(j.q);
	return j.failed ? -1 : 0;
}

int before_gates(int k) { return k == BEFORE_SILU_GATE || k == BEFORE_GELU_GATE || k == BEFORE_GELU_TANH_GATE; }

typedef struct before_job {
	float *y;
	const float *x;
	int kind;
	const float *scale, *shift;
	float epsilon;
	int64_t wide;
} before_job;

static void before_body(void *arg, int64_t from, int64_t to) {
	const before_job *j = arg;
	const int64_t in = before_gates(j->kind) ? 2 * j->wide : j->wide;
	kinds[kind_now()].before(j->y + from * j->wide, j->x + from * in, j->kind, j->scale, j->shift, j->epsilon, to - from, j->wide);
}

void before(float *y, const float *x, int what, const float *scale, const float *shift, float epsilon, int64_t rows, int64_t wide) {
	before_job j = {y, x, what, scale, shift, epsilon, wide};
	team_run(before_body, &j, rows, 8);
}

int64_t best(const float *x, int64_t n) { return kinds[kind_now()].best(x, n); }

double log_probability(const float *x, int64_t n, int64_t j) { return kinds[kind_now()].log_probability(x, n, j); }
