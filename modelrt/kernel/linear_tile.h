// Included by linear.c once for each kind of processor, with NAME, LANES and ROWS; no header of its own.

typedef float NAME(lanes) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(words) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

enum { NAME(TILE_ROWS) = ROWS };

#define VF NAME(lanes)
#define VI NAME(words)
#define VECTORS (PANEL / LANES)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

INLINE VF NAME(halves)(const uint16_t *h) {
#if defined(AVX512)
	return (VF)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)h));
#elif defined(F16C)
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
#if defined(AVX512)
	const __m512 table = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
	return (VF)_mm512_permutexvar_ps((__m512i)w, table); // looks at four bits of each index
#else
	return __builtin_convertvector(w & 15, VF);
#endif
}

INLINE VF NAME(bytes)(const int8_t *b) {
#if defined(AVX512)
	return (VF)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)b)));
#elif defined(F16C)
	return (VF)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)b)));
#else
	VF f;
	for (int i = 0; i < LANES; i++)
		f[i] = b[i];
	return f;
#endif
}

// tile computes R rows of one panel. acc has P sums for each value, so that short loops do not wait for their own last sum.
INLINE void NAME(tile)(const linear_job *j, const char *w, int form, int64_t row, int64_t panel, const int R, const int P, const int whole) {
	// Value i of row r is x[i*across + r*down].
	const int64_t k = j->k, across = whole ? R : 1, down = whole ? 1 : k;
	const float *const x = (whole ? j->tiles : j->x) + row * k;
	VF acc[P][R][VECTORS];
	UNROLL for (int p = 0; p < P; p++)
		UNROLL for (int r = 0; r < R; r++)
			UNROLL for (int v = 0; v < VECTORS; v++)
				acc[p][r][v] = (VF){0};
	switch (form) {
	case FORM_F32: {
		const float *f = (const float *)w;
		int64_t i = 0;
		for (; i + P <= k; i += P, f += P * PANEL) {
			UNROLL for (int p = 0; p < P; p++) {
				UNROLL for (int v = 0; v < VECTORS; v++) {
					const VF u = *(const VF *)(f + p * PANEL + v * LANES);
					UNROLL for (int r = 0; r < R; r++)
						acc[p][r][v] += x[(i + p) * across + r * down] * u;
				}
			}
		}
		for (; i < k; i++, f += PANEL)
			UNROLL for (int v = 0; v < VECTORS; v++) {
				const VF u = *(const VF *)(f + v * LANES);
				UNROLL for (int r = 0; r < R; r++)
					acc[0][r][v] += x[i * across + r * down] * u;
			}
		break;
	}
	case FORM_Q4_1:
		for (int64_t i = 0; i < k; i += BLOCK) {
			VF d[VECTORS], m[VECTORS];
			UNROLL for (int v = 0; v < VECTORS; v++) {
				d[v] = NAME(halves)((const uint16_t *)w + v * LANES);
				m[v] = NAME(halves)((const uint16_t *)w + PANEL + v * LANES);
			}
			w += 4 * PANEL;
			for (int64_t at = i; at < i + BLOCK; at += 8, w += 4 * PANEL) {
				VI u[VECTORS];
				UNROLL for (int v = 0; v < VECTORS; v++)
					u[v] = *(const VI *)(w + 4 * v * LANES);
				UNROLL for (int s = 0; s < 8; s++) {
					UNROLL for (int v = 0; v < VECTORS; v++) {
						const VF q = d[v] * NAME(nibbles)(u[v]) + m[v];
						u[v] >>= 4;
						UNROLL for (int r = 0; r < R; r++)
							acc[s % P][r][v] += x[(at + s) * across + r * down] * q;
					}
				}
			}
		}
		break;
	case FORM_Q8_0:
		for (int64_t i = 0; i < k; i += BLOCK) {
			VF d[VECTORS];
			UNROLL for (int v = 0; v < VECTORS; v++)
				d[v] = NAME(halves)((const uint16_t *)w + v * LANES);
			w += 2 * PANEL;
			for (int64_t at = i; at < i + BLOCK; at += P, w += P * PANEL) {
				UNROLL for (int p = 0; p < P; p++) {
					UNROLL for (int v = 0; v < VECTORS; v++) {
						const VF q = d[v] * NAME(bytes)((const int8_t *)w + p * PANEL + v * LANES);
						UNROLL for (int r = 0; r < R; r++)
							acc[p][r][v] += x[(at + p) * across + r * down] * q;
					}
				}
			}
		}
	}
	const int64_t first = panel * PANEL, wide = j->n - first < PANEL ? j->n - first : PANEL;
	UNROLL for (int r = 0; r < R; r++) {
		float *const y = j->y + (row + r) * j->n + first;
		float sums[PANEL];
		UNROLL for (int v = 0; v < VECTORS; v++) {
			VF sum = acc[0][r][v];
			UNROLL for (int p = 1; p < P; p++)
				sum += acc[p][r][v];
			*(VF *)(sums + v * LANES) = sum;
		}
		if (j->add)
			for (int64_t i = 0; i < wide; i++)
				y[i] += sums[i];
		else
			memcpy(y, sums, wide * sizeof(float));
	}
}

// One function for each size of tile: all loops over rows, sums and vectors are unrolled in it.
#define TILE(called, form, rows, sums)                                                                                              \
	static void NAME(JOIN(called##_, rows))(const linear_job *j, const char *w, int64_t row, int64_t panel) {                            \
		NAME(tile)(j, w, form, row, panel, rows, sums, 0);                                                                            \
	}
#define TILES(rows, sums) TILE(f32, FORM_F32, rows, sums) TILE(q4_1, FORM_Q4_1, rows, sums) TILE(q8_0, FORM_Q8_0, rows, sums)
TILES(1, 4)
TILES(2, 2)
#if ROWS > 3
TILES(3, 1)
TILES(4, 1)
TILES(6, 1)
TILES(8, 1)
#endif
static void NAME(f32_whole)(const linear_job *j, const char *w, int64_t row, int64_t panel) {
	NAME(tile)(j, w, FORM_F32, row, panel, ROWS, 1, 1);
}

// unpack writes a panel as FORM_F32.
static void NAME(unpack)(float *out, const char *w, int form, int64_t k) {
	for (int64_t i = 0; i < k; i += BLOCK) {
		VF d[VECTORS], m[VECTORS];
		for (int v = 0; v < VECTORS; v++)
			d[v] = NAME(halves)((const uint16_t *)w + v * LANES);
		w += 2 * PANEL;
		if (form == FORM_Q8_0) {
			for (int at = 0; at < BLOCK; at++, w += PANEL, out += PANEL)
				for (int v = 0; v < VECTORS; v++)
					*(VF *)(out + v * LANES) = d[v] * NAME(bytes)((const int8_t *)w + v * LANES);
			continue;
		}
		for (int v = 0; v < VECTORS; v++)
			m[v] = NAME(halves)((const uint16_t *)w + v * LANES);
		w += 2 * PANEL;
		for (int at = 0; at < BLOCK; at += 8, w += 4 * PANEL, out += 8 * PANEL)
			for (int v = 0; v < VECTORS; v++) {
				VI u = *(const VI *)(w + 4 * v * LANES);
				for (int s = 0; s < 8; s++, u >>= 4)
					*(VF *)(out + s * PANEL + v * LANES) = d[v] * NAME(nibbles)(u) + m[v];
			}
	}
}

// Packed forms with more rows than this are unpacked first: what a panel's values cost is shared by all rows.
#define UNPACK_FROM (ROWS >= 12 ? 9 : 4)

// tile_rows computes as many rows as one tile takes, at most left, and returns how many they were.
static int64_t NAME(tile_rows)(const linear_job *j, const char *w, int form, int64_t row, int64_t panel, int64_t left) {
#define TAKE(rows)                                                                                                                  \
	if (left >= rows) {                                                                                                             \
		if (form == FORM_F32)                                                                                                       \
			NAME(JOIN(f32_, rows))(j, w, row, panel);                                                                                     \
		else if (form == FORM_Q4_1)                                                                                                 \
			NAME(JOIN(q4_1_, rows))(j, w, row, panel);                                                                                    \
		else                                                                                                                        \
			NAME(JOIN(q8_0_, rows))(j, w, row, panel);                                                                                    \
		return rows;                                                                                                                \
	}
	if (left >= ROWS && form == FORM_F32 && j->tiles) {
		NAME(f32_whole)(j, w, row, panel);
		return ROWS;
	}
#if ROWS > 3
	TAKE(8)
	TAKE(6)
	TAKE(4)
	TAKE(3)
#endif
	TAKE(2)
	TAKE(1)
	return left;
#undef TAKE
}

static void NAME(panels)(const linear_job *j, int64_t from, int64_t to) {
	const int64_t bytes = panel_bytes(j->form, j->k);
	float *flat = 0;
	if (j->form != FORM_F32 && j->m >= UNPACK_FROM)
		flat = malloc(j->k * PANEL * sizeof(float)); // without it the rows are slower, not wrong
	for (int64_t panel = from; panel < to; panel++) {
		const char *w = j->w + panel * bytes;
		int form = j->form;
		if (flat) {
			NAME(unpack)(flat, w, form, j->k);
			w = (const char *)flat;
			form = FORM_F32;
		}
		for (int64_t row = 0; row < j->m;)
			row += NAME(tile_rows)(j, w, form, row, panel, j->m - row);
	}
	free(flat);
}

#undef VF
#undef VI
#undef VECTORS
#undef INLINE
#undef UNROLL
#undef TILE
#undef TILES
#undef UNPACK_FROM
