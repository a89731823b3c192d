// Runs the loops as ops.c does, for every kind of processor and on memory of exactly their size, so that a sanitizer sees what they touch.
#include "attention.h"
#include "kind.h"
#include "linear.h"
#include "team.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned seed = 1;
static int dice(int n) { return (int)((seed = seed * 1664525u + 1013904223u) >> 8) % n; }
static float *floats(int64_t n) {
	float *v = malloc(n * sizeof *v);
	for (int64_t i = 0; i < n; i++)
		v[i] = (float)(dice(2001) - 1000) / 500;
	return v;
}

static void products(void) {
	const int64_t ks[] = {1, 5, 32, 224}, ns[] = {1, 31, 32, 65}, ms[] = {1, 2, 3, 4, 8, 9, 13, 260};
	for (int form = 0; form < FORMS; form++)
		for (size_t a = 0; a < sizeof ks / 8; a++)
			for (size_t b = 0; b < sizeof ns / 8; b++) {
				const int64_t k = ks[a], n = ns[b], bytes = packed_bytes(form, k, n);
				if (bytes < 0)
					continue;
				char *w = malloc(bytes);
				if (form == FORM_F32) {
					float *rows = floats(k * n);
					pack_f32((float *)w, rows, k, n);
					free(rows);
				} else
					for (int64_t i = 0; i < bytes; i++)
						w[i] = (char)dice(256);
				for (size_t c = 0; c < sizeof ms / 8; c++) {
					const int64_t m = ms[c];
					float *x = floats(m * k), *y = floats(m * n), *column = floats(k);
					linear(y, x, w, form, m, k, n, 0);
					linear(y, x, w, form, m, k, n, 1);
					x[0] = 1e-38f; // too small for the loops of few rows
					linear(y, x, w, form, m, k, n, 0);
					if (form != FORM_F32) {
						linear8(y, x, w, form, m, k, n, 0);
						x[m * k - 1] = INFINITY;
						linear8(y, x, w, form, m, k, n, 1);
					}
					packed_column(column, w, form, k, n - 1);
					free(x), free(y), free(column);
				}
				free(w);
			}
}

static void mixtures(void) {
	const int64_t dims[] = {1, 20, 64, 80, 128};
	for (int64_t group = 1; group <= 8; group++)
		for (size_t d = 0; d < sizeof dims / 8; d++) {
			enum { T = 21, CAPACITY = 32, SLOTS = 2, KV = 2 };
			const int64_t dim = dims[d], pad = (dim + KEYS - 1) / KEYS * KEYS, heads = group * KV, half = dim / 2;
			int32_t slot[T], at[T], upto[T];
			for (int t = 0; t < T; t++)
				slot[t] = 1, at[t] = CAPACITY - T + t, upto[t] = t < 9 ? CAPACITY - T + 9 : at[t] + 1;
			attention_args a = {.out = floats(T * heads * dim), .qkv = floats(T * (heads + 2 * KV) * dim), .cosine = floats(T * half), .sine = floats(T * half),
				.keys = floats(SLOTS * KV * CAPACITY * dim), .values = floats(SLOTS * KV * CAPACITY * pad), .slot = slot, .at = at, .upto = upto, .tokens = T,
				.heads = heads, .kv_heads = KV, .dim = dim, .rotary = 2 * half, .capacity = CAPACITY, .window = group % 3 * 5, .scale = 0.1f};
			if (attention(&a) != 0)
				exit(1);
			free(a.out), free((void *)a.qkv), free((void *)a.cosine), free((void *)a.sine), free(a.keys), free(a.values);
		}
}

static void elementwise(void) {
	const int64_t wides[] = {1, 15, 33, 64, 100};
	for (int what = 1; what < BEFORES; what++)
		for (size_t a = 0; a < sizeof wides / 8; a++) {
			const int64_t wide = wides[a], rows = 19;
			float *x = floats(rows * wide * (before_gates(what) ? 2 : 1)), *y = floats(rows * wide), *scale = floats(wide), *shift = floats(wide);
			x[0] = NAN, x[wide / 2] = INFINITY, x[wide - 1] = -1e30f;
			before(y, x, what, scale, what == BEFORE_LAYER_NORM ? shift : 0, 1e-5f, rows, wide);
			if (best(x, wide) >= wide || isnan(log_probability(y, wide, 0)) > 1)
				exit(1);
			free(x), free(y), free(scale), free(shift);
		}
}

// count is a loop whose pieces are each counted once.
typedef struct count {
	int64_t n;
	_Atomic int64_t sum;
} count;
static void add(void *arg, int64_t from, int64_t to) {
	count *c = arg;
	for (int64_t i = from; i < to; i++)
		c->sum += i + 1;
}
static void *caller(void *arg) {
	for (int i = 0; i < 400; i++) {
		count c = {.n = 1 + (i * 7) % 100};
		team_run(add, &c, c.n, 1 + i % 5);
		if (c.sum != c.n * (c.n + 1) / 2) {
			fprintf(stderr, "a loop of %lld counted %lld\n", (long long)c.n, (long long)c.sum);
			exit(1);
		}
		if (i % 100 == 0)
			team_start(2 + i / 100);
	}
	return arg;
}

int main(void) {
	pthread_t callers[4];
	for (int i = 0; i < 4; i++)
		pthread_create(&callers[i], 0, caller, 0);
	for (int i = 0; i < 4; i++)
		pthread_join(callers[i], 0);
	for (int kind = 0; kind < KINDS; kind++) {
		if (kind_use(kind) != 0)
			continue;
		products();
		mixtures();
		elementwise();
	}
	return 0;
}
