#include "linear.h"
#include "team.h"
#include <stdlib.h>
#include <string.h>

static inline float half_to_float(uint16_t h) {
	const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
	uint32_t bits;
	float f;
	if (exponent == 0) { // zero or subnormal: exact as a product
		f = (float)fraction * 0x1p-24f;
		memcpy(&bits, &f, 4);
		bits |= sign;
	} else {
		bits = sign | (exponent == 31 ? 0xffu << 23 : (exponent + 112) << 23) | fraction << 13;
	}
	memcpy(&f, &bits, 4);
	return f;
}

static int64_t panel_bytes(int form, int64_t k) {
	switch (form) {
	case FORM_F32:
		return k * PANEL * 4;
	case FORM_Q4_1:
		return k / BLOCK * (2 * PANEL * 2 + BLOCK / 8 * PANEL * 4);
	case FORM_Q8_0:
		return k / BLOCK * (PANEL * 2 + BLOCK * PANEL);
	}
	return -1;
}

int64_t packed_bytes(int form, int64_t k, int64_t n) {
	if (form < 0 || form >= FORMS || k <= 0 || n <= 0 || k > 1 << 24 || n > 1 << 24 || (form != FORM_F32 && k % BLOCK != 0))
		return -1;
	return (n + PANEL - 1) / PANEL * panel_bytes(form, k);
}

typedef struct linear_job {
	float *y;
	const float *x, *tiles; // tiles holds whole tiles of rows, value after value, and is 0 where m is small
	const char *w;
	int form, add;
	int64_t m, k, n;
} linear_job;

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(x) JOIN(x, KIND)

// The same loops for each kind of processor. LANES is the floats of a vector register, ROWS how many rows of x a tile takes.
#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,f16c,fma,avx2")
#define KIND _avx512
#define LANES 16
#define ROWS 12
#define AVX512 1
#define F16C 1
#include "linear_tile.h"
#undef KIND
#undef LANES
#undef ROWS
#undef AVX512
#undef F16C
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,f16c,fma")
#define KIND _avx2
#define LANES 8
#define ROWS 3
#define F16C 1
#include "linear_tile.h"
#undef KIND
#undef LANES
#undef ROWS
#undef F16C
#pragma GCC pop_options
#endif
#define KIND _plain
#define LANES 4
#define ROWS 2
#include "linear_tile.h"

static struct {
	int64_t rows;
	void (*panels)(const linear_job *, int64_t, int64_t);
} kind = {TILE_ROWS_plain, panels_plain};

__attribute__((constructor)) static void choose(void) {
#if defined(__x86_64__)
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
		kind.rows = TILE_ROWS_avx512;
		kind.panels = panels_avx512;
	} else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
		kind.rows = TILE_ROWS_avx2;
		kind.panels = panels_avx2;
	}
#endif
}

static void linear_body(void *arg, int64_t from, int64_t to) { kind.panels(arg, from, to); }

// gather writes rows of x as tiles: of each `rows` rows value 0, then value 1 ...
typedef struct gather_job {
	float *tiles;
	const float *x;
	int64_t rows, k;
} gather_job;

static void gather_body(void *arg, int64_t from, int64_t to) {
	const gather_job *g = arg;
	for (int64_t t = from; t < to; t++) {
		float *out = g->tiles + t * g->rows * g->k;
		const float *in = g->x + t * g->rows * g->k;
		for (int64_t i = 0; i < g->k; i++)
			for (int64_t r = 0; r < g->rows; r++)
				*out++ = in[r * g->k + i];
	}
}

void linear(float *y, const float *x, const void *w, int form, int64_t m, int64_t k, int64_t n, int add) {
	linear_job j = {y, x, 0, w, form, add, m, k, n};
	const int64_t rows = kind.rows;
	float *tiles = 0;
	if (m >= rows && (tiles = malloc(m / rows * rows * k * sizeof(float)))) {
		gather_job g = {tiles, x, rows, k};
		team_run(gather_body, &g, m / rows, 2);
		j.tiles = tiles;
	}
	const int64_t panels = (n + PANEL - 1) / PANEL;
	int64_t grain = panels / (4 * team_size());
	team_run(linear_body, &j, panels, grain > 0 ? grain : 1);
	free(tiles);
}

void packed_column(float *out, const void *w, int form, int64_t k, int64_t j) {
	const char *p = (const char *)w + j / PANEL * panel_bytes(form, k);
	const int64_t at = j % PANEL;
	if (form == FORM_F32) {
		for (int64_t i = 0; i < k; i++)
			out[i] = ((const float *)p)[i * PANEL + at];
		return;
	}
	for (int64_t i = 0; i < k; i += BLOCK) {
		const float d = half_to_float(((const uint16_t *)p)[at]);
		p += 2 * PANEL;
		if (form == FORM_Q8_0) {
			for (int s = 0; s < BLOCK; s++, p += PANEL)
				out[i + s] = d * ((const int8_t *)p)[at];
			continue;
		}
		const float m = half_to_float(((const uint16_t *)p)[at]);
		p += 2 * PANEL;
		for (int s = 0; s < BLOCK; s += 8, p += 4 * PANEL)
			for (int q = 0; q < 8; q++)
				out[i + s + q] = d * (((const uint32_t *)p)[at] >> 4 * q & 15) + m;
	}
}

void pack_f32(float *out, const float *in, int64_t k, int64_t n) {
	for (int64_t from = 0; from < n; from += PANEL) {
		const int64_t wide = n - from < PANEL ? n - from : PANEL;
		for (int64_t i = 0; i < k; i++, out += PANEL) {
			memset(out, 0, PANEL * sizeof(float));
			memcpy(out, in + i * n + from, wide * sizeof(float));
		}
	}
}
