// Included by linear.c once for each kind of processor, with KIND, LANES (floats of a vector register), ROWS and THIN; no header of its own.
//
// Every value of a product is chains of fused multiply-adds over ascending k (linear.h), whatever the shape of the tile it is computed in, so
// that a row gives the same bits alone and in any batch.

typedef float NAME(lanes) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(words) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t NAME(bits) __attribute__((vector_size(4 * LANES)));

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

// Step s of a word's eight halves of bytes as floats, times 16^s: x has been divided by it (shrink). The last one is without.
INLINE VF NAME(shrunk)(VI w, const int s) {
	if (s == 7)
		return __builtin_convertvector((VI)((NAME(bits))w >> 28), VF);
	return __builtin_convertvector(w & 15 << 4 * s, VF);
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

// ENDBLOCK adds what a block has come to, t, to the sums of one row of a panel: d*t and, in FORM_Q4_1, m times the sum of the block's x.
#define ENDBLOCK(sums, t, form, d, m, whole)                                                                                        \
	do {                                                                                                                            \
		UNROLL for (int v = 0; v < VECTORS; v++) {                                                                                  \
			VF y_ = NAME(madd)(d(v), (t)[v], FROM((sums) + v * LANES));                                                             \
			if (form == FORM_Q4_1)                                                                                                  \
				y_ = NAME(madd)(m(v), ALL(whole), y_);                                                                              \
			AT((sums) + v * LANES) = y_;                                                                                            \
		}                                                                                                                           \
	} while (0)

// thin computes R rows, which are all there are, of Q panels side by side, straight from the packed form. Two panels are for few rows: a
// sum waits for its predecessor, and meanwhile the other panel's go on.
INLINE void NAME(thin)(const linear_job *j, int64_t panel, const int form, const int R, const int Q) {
	const int64_t k = j->k, bytes = panel_bytes(form, k), blocks = k / BLOCK;
	const float *const x = form == FORM_Q4_1 ? j->shrunk : j->x;
	const char *w = j->w + panel * bytes;
	// What is fetched at the end of two panels lies where the next two begin; at the end of the matrix it is nothing of ours, which a
	// prefetch may name.
	const int64_t far = form == FORM_F32 ? AHEAD_F32 : AHEAD, turn = k - far * k / bytes;
	int64_t ahead = far;
	VF t[2][THIN][VECTORS];
	float sums[2][THIN][PANEL] __attribute__((aligned(64)));
	UNROLL for (int q = 0; q < Q; q++)
		UNROLL for (int r = 0; r < R; r++)
			memcpy(sums[q][r], start(j, r, panel + q, sums[q][r]), sizeof sums[q][r]);
	if (form == FORM_F32) {
		UNROLL for (int q = 0; q < Q; q++)
			UNROLL for (int r = 0; r < R; r++)
				UNROLL for (int v = 0; v < VECTORS; v++)
					t[q][r][v] = FROM(sums[q][r] + v * LANES);
#define VALUE(v) FROM(w + q * bytes + 4 * (PANEL * e + LANES * v))
		for (int64_t i = 0; i < k / 4 * 4; i += 4, w += 4 * 4 * PANEL) {
			ahead = i < turn ? far : far + (Q - 1) * bytes;
			UNROLL for (int e = 0; e < 4; e++)
				UNROLL for (int q = 0; q < Q; q++) {
					FETCH(w + q * bytes + 4 * PANEL * e, 2);
					FETCH(w + q * bytes + 4 * PANEL * e + 64, 2);
					STEP(t[q], R, x + i + e, k, VALUE);
				}
		}
		for (int64_t i = k / 4 * 4; i < k; i++, w += 4 * PANEL) {
			const int e = 0;
			UNROLL for (int q = 0; q < Q; q++)
				STEP(t[q], R, x + i, k, VALUE);
		}
#undef VALUE
		UNROLL for (int q = 0; q < Q; q++)
			UNROLL for (int r = 0; r < R; r++)
				UNROLL for (int v = 0; v < VECTORS; v++)
					AT(sums[q][r] + v * LANES) = t[q][r][v];
	}
	for (int64_t i = 0; form != FORM_F32 && i < blocks; i++) {
		ahead = i * BLOCK < turn ? far : far + (Q - 1) * bytes;
		UNROLL for (int q = 0; q < Q; q++)
			UNROLL for (int r = 0; r < R; r++)
				UNROLL for (int v = 0; v < VECTORS; v++)
					t[q][r][v] = ALL(0.0f);
		const char *const scales = w;
		w += form == FORM_Q4_1 ? 4 * PANEL : 2 * PANEL;
		if (form == FORM_Q4_1) {
			for (int64_t at = i * BLOCK; at < (i + 1) * BLOCK; at += 8, w += 4 * PANEL) {
				UNROLL for (int q = 0; q < Q; q++) {
					FETCH(w + q * bytes, 1);
					FETCH(w + q * bytes + 64, 1);
				}
#define VALUE(v) NAME(shrunk)(*(const VI *)(w + q * bytes + 4 * v * LANES), s)
				UNROLL for (int s = 0; s < 8; s++)
					UNROLL for (int q = 0; q < Q; q++)
						STEP(t[q], R, x + at + s, k, VALUE);
#undef VALUE
			}
		} else {
			for (int64_t at = i * BLOCK; at < (i + 1) * BLOCK; at += 4, w += 4 * PANEL) {
				UNROLL for (int q = 0; q < Q; q++) {
					FETCH(w + q * bytes, 1);
					FETCH(w + q * bytes + 64, 1);
				}
#define VALUE(v) NAME(bytes)((const int8_t *)(w + q * bytes) + PANEL * e + LANES * v)
				UNROLL for (int e = 0; e < 4; e++)
					UNROLL for (int q = 0; q < Q; q++)
						STEP(t[q], R, x + at + e, k, VALUE);
#undef VALUE
			}
		}
#define D(v) NAME(halves)((const uint16_t *)(scales + q * bytes) + v * LANES)
#define M(v) NAME(halves)((const uint16_t *)(scales + q * bytes) + PANEL + v * LANES)
		UNROLL for (int q = 0; q < Q; q++)
			UNROLL for (int r = 0; r < R; r++)
				ENDBLOCK(sums[q][r], t[q][r], form, D, M, j->wholes[r * blocks + i]);
#undef D
#undef M
	}
	UNROLL for (int q = 0; q < Q; q++)
		UNROLL for (int r = 0; r < R; r++)
			finish(j, r, panel + q, sums[q][r]);
}

// thick adds k steps to R rows of sums [R, PANEL]. w is k rows of a panel, x has rows of `stride`. Of a form with blocks, w is their whole numbers as
// floats, scales [k/BLOCK, 2, PANEL] are d and m, and wholes has rows of stride/BLOCK. What lies at next is fetched meanwhile, `step` bytes in each step.
INLINE void NAME(thick)(float *sums, const thick_job *j, const int R, const int form) {
	const float *w = j->w, *x = j->x, *scales = j->scales, *wholes = j->wholes;
	const char *next = j->next;
	const int64_t stride = j->stride, turn = form == FORM_F32 ? j->k : BLOCK;
	for (int64_t done = 0; done < j->k; done += turn, scales += 2 * PANEL, wholes++) {
		VF t[ROWS][VECTORS];
		UNROLL for (int r = 0; r < R; r++)
			UNROLL for (int v = 0; v < VECTORS; v++)
				t[r][v] = form == FORM_F32 ? FROM(sums + r * PANEL + v * LANES) : ALL(0.0f);
#define VALUE(v) FROM(w + LANES * v)
		for (int64_t i = 0; i < turn; i++, w += PANEL, x++, next += j->step) {
			__builtin_prefetch(next, 0, 2);
			__builtin_prefetch(next + 64, 0, 2);
			STEP(t, R, x, stride, VALUE);
		}
#undef VALUE
#define D(v) FROM(scales + v * LANES)
#define M(v) FROM(scales + PANEL + v * LANES)
		UNROLL for (int r = 0; r < R; r++) {
			if (form == FORM_F32) {
				UNROLL for (int v = 0; v < VECTORS; v++)
					AT(sums + r * PANEL + v * LANES) = t[r][v];
			} else
				ENDBLOCK(sums + r * PANEL, t[r], form, D, M, wholes[r * (stride / BLOCK)]);
		}
#undef D
#undef M
	}
}

// One function for each shape of tile: all loops over rows, panels and vectors are unrolled in it.
#define THIN_TILES(R, Q)                                                                                                            \
	static void NAME(f32_##R##_##Q)(const linear_job *j, int64_t panel) { NAME(thin)(j, panel, FORM_F32, R, Q); }                   \
	static void NAME(q4_1_##R##_##Q)(const linear_job *j, int64_t panel) { NAME(thin)(j, panel, FORM_Q4_1, R, Q); }                 \
	static void NAME(q8_0_##R##_##Q)(const linear_job *j, int64_t panel) { NAME(thin)(j, panel, FORM_Q8_0, R, Q); }
#define THICK_TILE(R)                                                                                                               \
	static void NAME(thick_f32_##R)(float *sums, const thick_job *j) { NAME(thick)(sums, j, R, FORM_F32); }                         \
	static void NAME(thick_q4_1_##R)(float *sums, const thick_job *j) { NAME(thick)(sums, j, R, FORM_Q4_1); }                       \
	static void NAME(thick_q8_0_##R)(float *sums, const thick_job *j) { NAME(thick)(sums, j, R, FORM_Q8_0); }
#define THICK_OF(R) {NAME(thick_f32_##R), NAME(thick_q4_1_##R), NAME(thick_q8_0_##R)}
#define FORMS_OF(R, Q) {NAME(f32_##R##_##Q), NAME(q4_1_##R##_##Q), NAME(q8_0_##R##_##Q)}

typedef void (*NAME(thin_tile))(const linear_job *, int64_t);
typedef void (*NAME(thick_tile))(float *, const thick_job *);

THIN_TILES(1, 1)
THIN_TILES(1, 2)
THIN_TILES(2, 1)
THIN_TILES(3, 1)
THICK_TILE(1)
#if ROWS == 12
THIN_TILES(2, 2)
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
static const NAME(thin_tile) NAME(thin_pairs)[PAIRS][FORMS] = {FORMS_OF(1, 2), FORMS_OF(2, 2)};
static const NAME(thick_tile) NAME(thick_tiles)[ROWS + 1][FORMS] = {{0}, THICK_OF(1), {0}, {0}, {0}, {0}, THICK_OF(6), THICK_OF(7), THICK_OF(8), THICK_OF(9), THICK_OF(10), THICK_OF(11), THICK_OF(12)};
#else
THICK_TILE(2)
THICK_TILE(3)
static const NAME(thin_tile) NAME(thin_tiles)[THIN][FORMS] = {FORMS_OF(1, 1), FORMS_OF(2, 1), FORMS_OF(3, 1)};
static const NAME(thin_tile) NAME(thin_pairs)[PAIRS][FORMS] = {FORMS_OF(1, 2)};
static const NAME(thick_tile) NAME(thick_tiles)[ROWS + 1][FORMS] = {{0}, THICK_OF(1), THICK_OF(2), THICK_OF(3)};
#endif

// unpack writes the whole numbers of k rows of a panel as floats, and the scales of their blocks. w is where they begin.
static void NAME(unpack)(float *out, float *scales, const char *w, int form, int64_t k) {
	for (int64_t i = 0; i < k; i += BLOCK, scales += 2 * PANEL) {
		for (int v = 0; v < (form == FORM_Q4_1 ? 2 : 1) * VECTORS; v++)
			AT(scales + v * LANES) = NAME(halves)((const uint16_t *)w + v * LANES);
		w += form == FORM_Q4_1 ? 4 * PANEL : 2 * PANEL;
		if (form == FORM_Q8_0) {
			for (int at = 0; at < BLOCK; at++, w += PANEL, out += PANEL)
				for (int v = 0; v < VECTORS; v++)
					AT(out + v * LANES) = NAME(bytes)((const int8_t *)w + v * LANES);
			continue;
		}
		for (int at = 0; at < BLOCK; at += 8, w += 4 * PANEL, out += 8 * PANEL)
			for (int v = 0; v < VECTORS; v++) {
				const VI u = *(const VI *)(w + 4 * v * LANES);
				UNROLL for (int s = 0; s < 8; s++)
					AT(out + s * PANEL + v * LANES) = NAME(nibbles)(u >> 4 * s);
			}
	}
}

// rows computes rows first ... first+count-1 of one panel in tiles, DEEP steps of k after another: so many rows of a panel stay in the first
// cache, the rows of x beside them in the second. The tiles differ by a row at most.
static void NAME(rows)(const linear_job *j, int64_t panel, int64_t first, int64_t count) {
	float sums[BLOCK_ROWS * PANEL] __attribute__((aligned(64))), flat[DEEP * PANEL] __attribute__((aligned(64))), scales[DEEP / BLOCK * 2 * PANEL];
	const int64_t high = count < ROWS / 2 ? 1 : ROWS, tiles = (count + high - 1) / high, least = count / tiles, larger = count % tiles;
	for (int64_t r = 0; r < count; r++) {
		float edge[PANEL];
		memcpy(sums + r * PANEL, start(j, first + r, panel, edge), sizeof edge);
	}
	const char *w = j->w + panel * panel_bytes(j->form, j->k);
	for (int64_t i = 0; i < j->k; i += DEEP) {
		const int64_t deep = j->k - i < DEEP ? j->k - i : DEEP;
		thick_job t = {.w = (const float *)w, .scales = scales, .stride = j->k, .k = deep, .step = panel_bytes(j->form, BLOCK) / BLOCK};
		if (j->form != FORM_F32) {
			NAME(unpack)(flat, scales, w, j->form, deep);
			t.w = flat;
		}
		w += panel_bytes(j->form, deep);
		t.next = w;
		for (int64_t n = 0, r = 0; n < tiles; n++) {
			const int64_t wide = least + (n < larger);
			t.x = j->x + (first + r) * j->k + i;
			t.wholes = j->wholes + ((first + r) * j->k + i) / BLOCK;
			NAME(thick_tiles)[wide][j->form](sums + r * PANEL, &t);
			r += wide;
		}
	}
	for (int64_t r = 0; r < count; r++)
		finish(j, first + r, panel, sums + r * PANEL);
}

static void NAME(panels)(void *arg, int64_t from, int64_t to) {
	const linear_job *j = arg;
	if (j->m <= THIN && !j->tiny) {
		int64_t panel = from;
		for (; j->m <= PAIRS && panel + 2 <= to; panel += 2)
			NAME(thin_pairs)[j->m - 1][j->form](j, panel);
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
#undef ENDBLOCK
#undef THIN_TILES
#undef THICK_TILE
#undef THICK_OF
#undef FORMS_OF
