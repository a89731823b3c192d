#include "linear.h"
#include "kind.h"
#include "team.h"
#include <math.h>
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
	const float *x;
	const char *w;
	int form, add;
	int64_t m, k, n;
	// Of forms with blocks:
	const float *wholes; // [M, K/BLOCK] sums of x
	const float *shrunk; // [M, K] x divided by 16^(k%8), but by 1 where that is 7; only up to MOST_THIN rows
	int tiny;            // some x would be rounded by that
} linear_job;

// thick_job is what a tile of many rows works on, see thick.
typedef struct thick_job {
	const float *w, *scales, *x, *wholes;
	const char *next;
	int64_t stride, k, step;
} thick_job;

// DEEP rows of a panel are 24 KB. BLOCK_ROWS rows of x share what a panel costs to unpack. Memory is fetched so many bytes before its use, F32 into
// the second cache: a processor's own prefetching stops at the end of each page.
enum { MOST_THIN = 8, DEEP = 6 * BLOCK, BLOCK_ROWS = 252, AHEAD = 6 << 10, AHEAD_F32 = 16 << 10 };

static const float zeros[PANEL];

// start is where the sums of a row of one panel begin: PANEL floats, in y, or in edge where y has no more so many columns.
__attribute__((noinline)) static const float *start(const linear_job *j, int64_t row, int64_t panel, float *edge) {
	if (!j->add)
		return zeros;
	const int64_t first = panel * PANEL;
	const float *y = j->y + row * j->n + first;
	if (j->n - first >= PANEL)
		return y;
	memset(edge, 0, PANEL * sizeof(float));
	return memcpy(edge, y, (j->n - first) * sizeof(float));
}

// finish writes the sums of a row of one panel.
__attribute__((noinline)) static void finish(const linear_job *j, int64_t row, int64_t panel, const float *sums) {
	const int64_t first = panel * PANEL;
	float *y = j->y + row * j->n + first;
	if (j->n - first >= PANEL)
		memcpy(y, sums, PANEL * sizeof(float));
	else
		memcpy(y, sums, (j->n - first) * sizeof(float));
}

// block8 is what a rounded block of a row of x has beside its bytes: the scale, the sum of the bytes, and their product.
typedef struct block8 {
	float d, s;
	int32_t total;
} block8;

typedef int32_t word8 __attribute__((may_alias)); // four bytes

typedef struct linear8_job {
	linear_job of;
	int8_t *q;      // [K/BLOCK, M, BLOCK]
	block8 *blocks; // [K/BLOCK, M]
} linear8_job;

// ROWS8 rows share what a block costs to unpack. Adding MAGIC to a small value leaves it, rounded to a whole number, in the last bits.
enum { ROWS8 = 64, MAGIC_BITS = 0x4b400000 };
#define MAGIC 0x1.8p23f

// scale8 begins a block whose largest magnitude has these bits. It returns what the values are multiplied by, 0 where all of them become 0.
static inline float scale8(block8 *b, int32_t bits) {
	float most;
	memcpy(&most, &bits, 4);
	b->d = b->s = 0;
	b->total = 0;
	if (bits >= 0x7f800000) { // not finite
		b->d = b->s = NAN;
		return 0;
	}
	if (most < 0x1p-100f)
		return 0;
	b->d = most / 127;
	return 127 / most;
}

// The same loops for each kind of processor. LANES is the floats of a vector register, ROWS the rows that a tile takes at most, THIN the rows
// up to which there is one tile over the packed form, PAIRS those up to which it is over two panels.
#if defined(__x86_64__)
#include <immintrin.h>
BEGIN_AVX512
#define KIND _avx512
#define LANES 16
#define ROWS 12
#define THIN 8
#define PAIRS 2
#include "linear_tile.h"
#include "linear8_tile.h"
#undef KIND
#undef LANES
#undef ROWS
#undef THIN
#undef PAIRS
END
BEGIN_VNNI
#define KIND _vnni
#define LANES 16
#define VNNI
#include "linear8_tile.h"
#undef KIND
#undef LANES
#undef VNNI
END
BEGIN_AVX2
#define KIND _avx2
#define LANES 8
#define ROWS 3
#define THIN 3
#define PAIRS 1
#include "linear_tile.h"
#include "linear8_tile.h"
#undef KIND
#undef LANES
#undef ROWS
#undef THIN
#undef PAIRS
END
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#define KIND _plain
#define LANES 4
#define ROWS 3
#define THIN 3
#define PAIRS 1
#include "linear_tile.h"
#undef LANES
#define LANES 0
#include "linear8_tile.h"

static const struct {
	team_body panels, rounds8, panels8;
} kinds[KINDS] = {
	[KIND_PLAIN] = {panels_plain, rounds8_plain, panels8_plain},
#if defined(__x86_64__)
	[KIND_AVX2] = {panels_avx2, rounds8_avx2, panels8_avx2},
	[KIND_AVX512] = {panels_avx512, rounds8_avx512, panels8_avx512},
	[KIND_VNNI] = {panels_avx512, rounds8_vnni, panels8_vnni},
#endif
};

// whole adds up a block, in an order that vectors of any length up to 8 have as well.
static float whole(const float *x) {
	float p[8];
	for (int i = 0; i < 8; i++)
		p[i] = x[i] + x[i + 8] + x[i + 16] + x[i + 24];
	for (int n = 4; n > 0; n /= 2)
		for (int i = 0; i < n; i++)
			p[i] += p[i + n];
	return p[0];
}

// shrink writes j->shrunk. It returns whether a value is so small that dividing it would round it.
static int shrink(float *to, const float *x, int64_t count) {
	int tiny = 0;
	for (int64_t i = 0; i < count; i += 8)
		for (int s = 0; s < 8; s++) {
			to[i + s] = x[i + s] * (const float[]){1, 0x1p-4f, 0x1p-8f, 0x1p-12f, 0x1p-16f, 0x1p-20f, 0x1p-24f, 1}[s];
			tiny |= (x[i + s] != 0) & (fabsf(x[i + s]) < 0x1p-100f);
		}
	return tiny;
}

int linear(float *y, const float *x, const void *w, int form, int64_t m, int64_t k, int64_t n, int add) {
	linear_job j = {.y = y, .x = x, .w = w, .form = form, .add = add, .m = m, .k = k, .n = n};
	float *made = 0;
	if (form != FORM_F32) {
		if (!(made = malloc((m * (k / BLOCK) + (m <= MOST_THIN ? m * k : 0)) * sizeof(float))))
			return -1;
		for (int64_t i = 0; i < m * (k / BLOCK); i++)
			made[i] = whole(x + i * BLOCK);
		j.wholes = made;
		if (form == FORM_Q4_1 && m <= MOST_THIN) {
			j.shrunk = made + m * (k / BLOCK);
			j.tiny = shrink((float *)j.shrunk, x, m * k);
		}
	}
	const int64_t count = (n + PANEL - 1) / PANEL, least = m <= 2 ? 2 : 1, grain = count / (16 * team_size()) / least * least; // few rows take two panels at once
	team_run(kinds[kind_now()].panels, &j, count, grain > 0 ? grain : least);
	free(made);
	return 0;
}

int linear8(float *y, const float *x, const void *w, int form, int64_t m, int64_t k, int64_t n, int add) {
	linear8_job j = {.of = {.y = y, .x = x, .w = w, .form = form, .add = add, .m = m, .k = k, .n = n}};
	if (!(j.blocks = malloc(m * k / BLOCK * sizeof(block8) + m * k)))
		return -1;
	j.q = (int8_t *)(j.blocks + m * k / BLOCK);
	team_run(kinds[kind_now()].rounds8, &j, m, 8);
	const int64_t count = (n + PANEL - 1) / PANEL, grain = count / (16 * team_size());
	team_run(kinds[kind_now()].panels8, &j, count, grain > 0 ? grain : 1);
	free(j.blocks);
	return 0;
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
