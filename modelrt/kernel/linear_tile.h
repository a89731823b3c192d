// Included by linear.c once for each kind of processor, with KIND, LANES (floats of a vector register), ROWS and THIN; no header of its own.
//
// Every value of a product is one chain of fused multiply-adds over ascending k, whatever the shape of the tile it is computed in, so
// that a row gives the same bits alone and in any batch.

typedef float NAME(lanes) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(words) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define VF NAME(lanes)
#define VI NAME(words)
#define VECTORS (PANEL / LANES)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")
#define ALL NAME(all)
#define AT(p) (*(VF *)(p))
#define FROM(p) (*(const VF *)(p))
#define FETCH(p, cache) __builtin_prefetch((p) + ahead, 0, 4 - (cache))

INLINE VF NAME(all)(float value) {
#if LANES == 16
	return (VF)_mm512_set1_ps(value);
#elif LANES == 8
	return (VF)_mm256_set1_ps(value);
#else
	return (VF){value, value, value, value};
#endif
}

INLINE VF NAME(madd)(VF a, VF b, VF c) {
#if LANES == 16
	return (VF)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif LANES == 8
	return (VF)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
	return (VF)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
	return a * b + c;
#endif
}

INLINE VF NAME(halves)(const uint16_t *h) {
#if LANES == 16
	return (VF)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)h));
#elif LANES == 8
	return (VF)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)h));
#else
	VF f;
	for (int i = 0; i < LANES; i++)
		f[i] = half_to_float(h[i]);
	return f;
#endif
}

// The lowest four bits of each word as floats.
INLINE VF NAME(nibbles)(VI w) {
#if LANES == 16
	const __m512 table = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
	return (VF)_mm512_permutexvar_ps((__m512i)w, table); // looks at four bits of each index
#else
	return __builtin_convertvector(w & 15, VF);
#endif
}

INLINE VF NAME(bytes)(const int8_t *b) {
#if LANES == 16
	return (VF)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)b)));
#elif LANES == 8
	return (VF)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)b)));
#else
	VF f;
	for (int i = 0; i < LANES; i++)
		f[i] = b[i];
	return f;
#endif
}

// STEP adds x[r] times W's row k to R rows of sums. value(v) is vector v of W's row. The orders differ in how many registers they need.
#if LANES == 16
#define STEP(sums, R, x, stride, value)                                                                                             \
	do {                                                                                                                            \
		VF u_[VECTORS];                                                                                                             \
		UNROLL for (int v = 0; v < VECTORS; v++)                                                                                    \
			u_[v] = value(v);                                                                                                       \
		UNROLL for (int r = 0; r < R; r++) {                                                                                        \
			const VF x_ = ALL((x)[r * (stride)]);                                                                                   \
			UNROLL for (int v = 0; v < VECTORS; v++)                                                                                \
				(sums)[r][v] = NAME(madd)(x_, u_[v], (sums)[r][v]);                                                                 \
		}                                                                                                                           \
	} while (0)
#else
#define STEP(sums, R, x, stride, value)                                                                                             \
	do {                                                                                                                            \
		VF x_[ROWS];                                                                                                                \
		UNROLL for (int r = 0; r < R; r++)                                                                                          \
			x_[r] = ALL((x)[r * (stride)]);                                                                                         \
		UNROLL for (int v = 0; v < VECTORS; v++) {                                                                                  \
			const VF u_ = value(v);                                                                                                 \
			UNROLL for (int r = 0; r < R; r++)                                                                                      \
				(sums)[r][v] = NAME(madd)(x_[r], u_, (sums)[r][v]);                                                                 \
		}                                                                                                                           \
	} while (0)
#endif

// thin computes R rows, which are all there are, of Q panels side by side, straight from the packed form. Two panels are for few rows: a
// sum waits for its predecessor, and meanwhile the other panel's go on.
INLINE void NAME(thin)(const linear_job *j, int64_t panel, const int form, const int R, const int Q) {
	const int64_t k = j->k, bytes = panel_bytes(form, k);
	const float *const x = j->x;
	const char *w = j->w + panel * bytes;
	// What is fetched at the end of two panels lies where the next two begin; at the end of the matrix it is nothing of ours, which a
	// prefetch may name.
	const int64_t far = form == FORM_F32 ? AHEAD_F32 : AHEAD, turn = k - far * k / bytes;
	int64_t ahead = far;
	VF sums[2][THIN][VECTORS];
	float edge[PANEL];
	UNROLL for (int q = 0; q < Q; q++) {
		UNROLL for (int r = 0; r < R; r++) {
			const float *from = start(j, r, panel + q, edge);
			UNROLL for (int v = 0; v < VECTORS; v++)
				sums[q][r][v] = FROM(from + v * LANES);
		}
	}
	switch (form) {
	case FORM_F32:
#define VALUE(v) FROM(w + q * bytes + 4 * (PANEL * e + LANES * v))
		for (int64_t i = 0; i < k / 4 * 4; i += 4, w += 4 * 4 * PANEL) {
			ahead = i < turn ? far : far + (Q - 1) * bytes;
			UNROLL for (int e = 0; e < 4; e++)
				UNROLL for (int q = 0; q < Q; q++) {
					FETCH(w + q * bytes + 4 * PANEL * e, 2);
					FETCH(w + q * bytes + 4 * PANEL * e + 64, 2);
					STEP(sums[q], R, x + i + e, k, VALUE);
				}
		}
		for (int64_t i = k / 4 * 4; i < k; i++, w += 4 * PANEL) {
			const int e = 0;
			UNROLL for (int q = 0; q < Q; q++)
				STEP(sums[q], R, x + i, k, VALUE);
		}
#undef VALUE
		break;
	case FORM_Q4_1:
		for (int64_t i = 0; i < k; i += BLOCK) {
			ahead = i < turn ? far : far + (Q - 1) * bytes;
			VF d[2][VECTORS], m[2][VECTORS];
			UNROLL for (int q = 0; q < Q; q++) {
				UNROLL for (int v = 0; v < VECTORS; v++) {
					d[q][v] = NAME(halves)((const uint16_t *)(w + q * bytes) + v * LANES);
					m[q][v] = NAME(halves)((const uint16_t *)(w + q * bytes) + PANEL + v * LANES);
				}
			}
			w += 4 * PANEL;
			for (int64_t at = i; at < i + BLOCK; at += 8, w += 4 * PANEL) {
				VI u[2][VECTORS];
				UNROLL for (int q = 0; q < Q; q++) {
					FETCH(w + q * bytes, 1);
					FETCH(w + q * bytes + 64, 1);
					UNROLL for (int v = 0; v < VECTORS; v++)
						u[q][v] = *(const VI *)(w + q * bytes + 4 * v * LANES);
				}
#define VALUE(v) NAME(madd)(d[q][v], NAME(nibbles)(u[q][v] >> 4 * s), m[q][v])
				UNROLL for (int s = 0; s < 8; s++)
					UNROLL for (int q = 0; q < Q; q++)
						STEP(sums[q], R, x + at + s, k, VALUE);
#undef VALUE
			}
		}
		break;
	case FORM_Q8_0:
		for (int64_t i = 0; i < k; i += BLOCK) {
			ahead = i < turn ? far : far + (Q - 1) * bytes;
			VF d[2][VECTORS];
			UNROLL for (int q = 0; q < Q; q++)
				UNROLL for (int v = 0; v < VECTORS; v++)
					d[q][v] = NAME(halves)((const uint16_t *)(w + q * bytes) + v * LANES);
			w += 2 * PANEL;
			for (int64_t at = i; at < i + BLOCK; at += 4, w += 4 * PANEL) {
				UNROLL for (int q = 0; q < Q; q++) {
					FETCH(w + q * bytes, 1);
					FETCH(w + q * bytes + 64, 1);
				}
#define VALUE(v) (d[q][v] * NAME(bytes)((const int8_t *)(w + q * bytes) + PANEL * e + LANES * v))
				UNROLL for (int e = 0; e < 4; e++)
					UNROLL for (int q = 0; q < Q; q++)
						STEP(sums[q], R, x + at + e, k, VALUE);
#undef VALUE
			}
		}
	}
	UNROLL for (int q = 0; q < Q; q++) {
		UNROLL for (int r = 0; r < R; r++) {
			float out[PANEL];
			UNROLL for (int v = 0; v < VECTORS; v++)
				AT(out + v * LANES) = sums[q][r][v];
			finish(j, r, panel + q, out);
		}
	}
}

// thick adds k steps to R rows of sums [R, PANEL]. w is k rows of a panel as FORM_F32, x has rows of `stride`. What lies at next is
// fetched meanwhile, `step` bytes in each step.
INLINE void NAME(thick)(float *sums, const float *w, const float *x, int64_t stride, int64_t k, const char *next, int64_t step, const int R) {
	VF s[ROWS][VECTORS];
	UNROLL for (int r = 0; r < R; r++)
		UNROLL for (int v = 0; v < VECTORS; v++)
			s[r][v] = FROM(sums + r * PANEL + v * LANES);
#define VALUE(v) FROM(w + LANES * v)
	for (int64_t i = 0; i < k; i++, w += PANEL, next += step) {
		__builtin_prefetch(next, 0, 2);
		__builtin_prefetch(next + 64, 0, 2);
		STEP(s, R, x + i, stride, VALUE);
	}
#undef VALUE
	UNROLL for (int r = 0; r < R; r++)
		UNROLL for (int v = 0; v < VECTORS; v++)
			AT(sums + r * PANEL + v * LANES) = s[r][v];
}

// One function for each shape of tile: all loops over rows, panels and vectors are unrolled in it.
#define THIN_TILES(R, Q)                                                                                                            \
	static void NAME(f32_##R##_##Q)(const linear_job *j, int64_t panel) { NAME(thin)(j, panel, FORM_F32, R, Q); }                   \
	static void NAME(q4_1_##R##_##Q)(const linear_job *j, int64_t panel) { NAME(thin)(j, panel, FORM_Q4_1, R, Q); }                 \
	static void NAME(q8_0_##R##_##Q)(const linear_job *j, int64_t panel) { NAME(thin)(j, panel, FORM_Q8_0, R, Q); }
#define THICK_TILE(R)                                                                                                               \
	static void NAME(thick_##R)(float *sums, const float *w, const float *x, int64_t stride, int64_t k, const char *next, int64_t step) {   \
		NAME(thick)(sums, w, x, stride, k, next, step, R);                                                                             \
	}
#define FORMS_OF(R, Q) {NAME(f32_##R##_##Q), NAME(q4_1_##R##_##Q), NAME(q8_0_##R##_##Q)}

typedef void (*NAME(thin_tile))(const linear_job *, int64_t);
typedef void (*NAME(thick_tile))(float *, const float *, const float *, int64_t, int64_t, const char *, int64_t);

THIN_TILES(1, 1)
THIN_TILES(2, 1)
#if ROWS == 12
THIN_TILES(1, 2)
THIN_TILES(2, 2)
THIN_TILES(3, 1)
THIN_TILES(4, 1)
THIN_TILES(5, 1)
THIN_TILES(6, 1)
THIN_TILES(7, 1)
THIN_TILES(8, 1)
THICK_TILE(6)
THICK_TILE(7)
THICK_TILE(8)
THICK_TILE(9)
THICK_TILE(10)
THICK_TILE(11)
THICK_TILE(12)
static const NAME(thin_tile) NAME(thin_tiles)[THIN][FORMS] = {FORMS_OF(1, 1), FORMS_OF(2, 1), FORMS_OF(3, 1), FORMS_OF(4, 1), FORMS_OF(5, 1), FORMS_OF(6, 1), FORMS_OF(7, 1), FORMS_OF(8, 1)};
static const NAME(thin_tile) NAME(thin_pairs)[2][FORMS] = {FORMS_OF(1, 2), FORMS_OF(2, 2)};
static const NAME(thick_tile) NAME(thick_tiles)[ROWS + 1] = {0, 0, 0, 0, 0, 0, NAME(thick_6), NAME(thick_7), NAME(thick_8), NAME(thick_9), NAME(thick_10), NAME(thick_11), NAME(thick_12)};
#else
THIN_TILES(3, 1)
THICK_TILE(2)
THICK_TILE(3)
static const NAME(thin_tile) NAME(thin_tiles)[THIN][FORMS] = {FORMS_OF(1, 1), FORMS_OF(2, 1), FORMS_OF(3, 1)};
static const NAME(thick_tile) NAME(thick_tiles)[ROWS + 1] = {0, 0, NAME(thick_2), NAME(thick_3)};
#endif

// unpack writes k rows of a panel as FORM_F32. w is where they begin.
static void NAME(unpack)(float *out, const char *w, int form, int64_t k) {
	for (int64_t i = 0; i < k; i += BLOCK) {
		VF d[VECTORS], m[VECTORS];
		for (int v = 0; v < VECTORS; v++)
			d[v] = NAME(halves)((const uint16_t *)w + v * LANES);
		w += 2 * PANEL;
		if (form == FORM_Q8_0) {
			for (int at = 0; at < BLOCK; at++, w += PANEL, out += PANEL)
				for (int v = 0; v < VECTORS; v++)
					AT(out + v * LANES) = d[v] * NAME(bytes)((const int8_t *)w + v * LANES);
			continue;
		}
		for (int v = 0; v < VECTORS; v++)
			m[v] = NAME(halves)((const uint16_t *)w + v * LANES);
		w += 2 * PANEL;
		for (int at = 0; at < BLOCK; at += 8, w += 4 * PANEL, out += 8 * PANEL)
			for (int v = 0; v < VECTORS; v++) {
				const VI u = *(const VI *)(w + 4 * v * LANES);
				UNROLL for (int s = 0; s < 8; s++)
					AT(out + s * PANEL + v * LANES) = NAME(madd)(d[v], NAME(nibbles)(u >> 4 * s), m[v]);
			}
	}
}

// rows computes rows first ... first+count-1 of one panel in tiles, DEEP steps of k after another: so many rows of a panel stay in the first
// cache, the rows of x beside them in the second. The tiles differ by a row at most.
static void NAME(rows)(const linear_job *j, int64_t panel, int64_t first, int64_t count) {
	float sums[BLOCK_ROWS * PANEL] __attribute__((aligned(64))), flat[DEEP * PANEL] __attribute__((aligned(64)));
	const int64_t tiles = (count + ROWS - 1) / ROWS, least = count / tiles, larger = count % tiles, step = panel_bytes(j->form, BLOCK) / BLOCK;
	for (int64_t r = 0; r < count; r++) {
		float edge[PANEL];
		memcpy(sums + r * PANEL, start(j, first + r, panel, edge), sizeof edge);
	}
	const char *w = j->w + panel * panel_bytes(j->form, j->k);
	for (int64_t i = 0; i < j->k; i += DEEP) {
		const int64_t deep = j->k - i < DEEP ? j->k - i : DEEP, bytes = panel_bytes(j->form, deep);
		const float *values = (const float *)w;
		if (j->form != FORM_F32) {
			NAME(unpack)(flat, w, j->form, deep);
			values = flat;
		}
		w += bytes;
		for (int64_t t = 0, r = 0; t < tiles; t++) {
			const int64_t high = least + (t < larger);
			NAME(thick_tiles)[high](sums + r * PANEL, values, j->x + (first + r) * j->k + i, j->k, deep, w, step);
			r += high;
		}
	}
	for (int64_t r = 0; r < count; r++)
		finish(j, first + r, panel, sums + r * PANEL);
}

static void NAME(panels)(void *arg, int64_t from, int64_t to) {
	const linear_job *j = arg;
	if (j->m <= THIN) {
		int64_t panel = from;
#if ROWS == 12
		for (; j->m <= 2 && panel + 2 <= to; panel += 2)
			NAME(thin_pairs)[j->m - 1][j->form](j, panel);
#endif
		for (; panel < to; panel++)
			NAME(thin_tiles)[j->m - 1][j->form](j, panel);
		return;
	}
	const int64_t blocks = (j->m + BLOCK_ROWS - 1) / BLOCK_ROWS;
	for (int64_t panel = from; panel < to; panel++)
		for (int64_t b = 0; b < blocks; b++)
			NAME(rows)(j, panel, j->m * b / blocks, j->m * (b + 1) / blocks - j->m * b / blocks);
}

#undef VF
#undef VI
#undef VECTORS
#undef INLINE
#undef UNROLL
#undef ALL
#undef AT
#undef FROM
#undef FETCH
#undef STEP
#undef THIN_TILES
#undef THICK_TILE
#undef FORMS_OF
