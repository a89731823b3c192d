// Included by linear.c once for each kind of processor, with KIND and LANES (floats of a vector register; 0 is plain C); VNNI is set where the processor
// multiplies bytes into words of 32 bits. No header of its own.
//
// A block's 32 products are summed as integers, so their order does not matter. What follows is, for each block, one multiplication and one or two
// fused multiply-adds: the same bits on every processor, alone and in any batch.

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

#if LANES == 0

// round8 rounds a block. Its order is that of the form's words.
static void NAME(round8)(int8_t *q, block8 *b, const float *x, int form) {
	int32_t most = 0, bits;
	for (int i = 0; i < BLOCK; i++) {
		memcpy(&bits, x + i, 4);
		bits &= 0x7fffffff;
		most = most > bits ? most : bits;
	}
	const float inverse = scale8(b, most);
	if (inverse == 0) {
		memset(q, 0, BLOCK);
		return;
	}
	for (int i = 0; i < BLOCK; i++) {
		const float shifted = fmaf(x[i], inverse, MAGIC);
		memcpy(&bits, &shifted, 4);
		bits -= MAGIC_BITS;
		q[form == FORM_Q4_1 ? i / 8 * 8 + i % 2 * 4 + i % 8 / 2 : i] = (int8_t)bits;
		b->total += bits;
	}
	b->s = b->d * (float)b->total;
}

// block adds one block of a panel, at w, to `rows` rows of sums [rows, PANEL].
static void NAME(block)(float *sums, const char *w, const int8_t *q, const block8 *b, int64_t rows, int form) {
	int16_t u[BLOCK][PANEL]; // in the order of q
	const uint16_t *d = (const uint16_t *)w, *m = d + PANEL;
	for (int i = 0; i < BLOCK; i++)
		for (int j = 0; j < PANEL; j++)
			u[i][j] = form == FORM_Q8_0 ? ((const int8_t *)(w + 2 * PANEL))[i * PANEL + j]
										: (int16_t)(((const uint32_t *)(w + 4 * PANEL))[i / 8 * PANEL + j] >> (i % 4 * 8 + i / 4 % 2 * 4) & 15);
	for (int64_t r = 0; r < rows; r++, sums += PANEL, q += BLOCK, b++) {
		int32_t dots[PANEL] = {0};
		for (int i = 0; i < BLOCK; i++)
			for (int j = 0; j < PANEL; j++)
				dots[j] += q[i] * u[i][j];
		for (int j = 0; j < PANEL; j++) {
			sums[j] = fmaf(half_to_float(d[j]), (float)dots[j] * b->d, sums[j]);
			if (form == FORM_Q4_1)
				sums[j] = fmaf(half_to_float(m[j]), b->s, sums[j]);
		}
	}
}

#else

#if LANES == 16
#define VF __m512
#define VI __m512i
#define OF(op) _mm512_##op
#define LOAD(p) _mm512_loadu_si512(p)
#define HALVES(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#define AND(a, b) _mm512_and_si512(a, b)
#define XOR(a, b) _mm512_xor_si512(a, b)
#else
#define VF __m256
#define VI __m256i
#define OF(op) _mm256_##op
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define HALVES(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p)))
#define AND(a, b) _mm256_and_si256(a, b)
#define XOR(a, b) _mm256_xor_si256(a, b)
#endif

static void NAME(round8)(int8_t *q, block8 *b, const float *x, int form) {
	const __m256i sign = _mm256_set1_epi32(0x7fffffff);
	__m256i most = _mm256_setzero_si256(), v[4];
	UNROLL for (int i = 0; i < 4; i++)
		most = _mm256_max_epi32(most, _mm256_and_si256(sign, _mm256_loadu_si256((const __m256i *)(x + 8 * i))));
	__m128i top = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
	top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0x4e));
	top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0xb1));
	const float inverse = scale8(b, _mm_cvtsi128_si32(top));
	if (inverse == 0) {
		memset(q, 0, BLOCK);
		return;
	}
	UNROLL for (int i = 0; i < 4; i++)
		v[i] = _mm256_sub_epi32(_mm256_castps_si256(_mm256_fmadd_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(inverse), _mm256_set1_ps(MAGIC))),
			_mm256_set1_epi32(MAGIC_BITS));
	__m256i sum = _mm256_add_epi32(_mm256_add_epi32(v[0], v[1]), _mm256_add_epi32(v[2], v[3]));
	__m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
	half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
	half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
	b->total = _mm_cvtsi128_si32(half);
	b->s = b->d * (float)b->total;
	__m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
	bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
	if (form == FORM_Q4_1)
		bytes = _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)));
	_mm256_storeu_si256((__m256i *)q, bytes);
}

// spread puts a block's values of LANES columns into words of four steps of k each, without signs.
INLINE void NAME(spread)(VI *u, const char *w, const int form) {
	UNROLL for (int g = 0; g < 4; g++) {
		if (form == FORM_Q4_1) {
			const VI packed = LOAD(w + g * 4 * PANEL), low = OF(set1_epi8)(15);
			u[2 * g] = AND(packed, low);
			u[2 * g + 1] = AND(OF(srli_epi16)(packed, 4), low);
			continue;
		}
		UNROLL for (int h = 2 * g; h < 2 * g + 2; h++) {
			__m128i r[4];
			UNROLL for (int i = 0; i < 4; i++)
#if LANES == 16
				r[i] = _mm_loadu_si128((const __m128i *)(w + (4 * h + i) * PANEL));
			const __m128i a = _mm_unpacklo_epi8(r[0], r[1]), b = _mm_unpacklo_epi8(r[2], r[3]), c = _mm_unpackhi_epi8(r[0], r[1]), d = _mm_unpackhi_epi8(r[2], r[3]);
			const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi16(a, b)), _mm_unpackhi_epi16(a, b), 1);
			const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi16(c, d)), _mm_unpackhi_epi16(c, d), 1);
			u[h] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
#else
				r[i] = _mm_loadl_epi64((const __m128i *)(w + (4 * h + i) * PANEL));
			const __m128i a = _mm_unpacklo_epi8(r[0], r[1]), b = _mm_unpacklo_epi8(r[2], r[3]);
			u[h] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi16(a, b)), _mm_unpackhi_epi16(a, b), 1);
#endif
		}
	}
}

// dots are the sums of one row's 32 products for LANES columns.
INLINE VF NAME(dots)(const VI *u, const int8_t *q, int32_t total, const int form) {
	const word8 *four = (const word8 *)q;
#if defined(VNNI)
	// A signed byte with its first bit turned is itself and 128.
	VI sum = OF(set1_epi32)(form == FORM_Q8_0 ? -128 * total : 0);
	UNROLL for (int h = 0; h < 8; h++)
		sum = OF(dpbusd_epi32)(sum, form == FORM_Q8_0 ? XOR(u[h], OF(set1_epi8)(-128)) : u[h], OF(set1_epi32)(four[h]));
#else
	(void)total;
	const VI ones = OF(set1_epi16)(1);
	VI sum;
	if (form == FORM_Q4_1) { // 8 sums of two products of 15 and 127 fit 16 bits
		VI pairs = OF(maddubs_epi16)(u[0], OF(set1_epi32)(four[0]));
		UNROLL for (int h = 1; h < 8; h++)
			pairs = OF(add_epi16)(pairs, OF(maddubs_epi16)(u[h], OF(set1_epi32)(four[h])));
		sum = OF(madd_epi16)(pairs, ones);
	} else { // two products of 128 and 127 do
#if LANES == 16
		sum = _mm512_setzero_si512();
		UNROLL for (int h = 0; h < 8; h++) {
			const VI x = _mm512_set1_epi32(four[h]), turned = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(u[h]), _mm512_setzero_si512(), x);
			sum = _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_abs_epi8(u[h]), turned), ones));
		}
#else
		sum = _mm256_setzero_si256();
		UNROLL for (int h = 0; h < 8; h++)
			sum = _mm256_add_epi32(sum,
				_mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(u[h]), _mm256_sign_epi8(_mm256_set1_epi32(four[h]), u[h])), ones));
#endif
	}
#endif
	return OF(cvtepi32_ps)(sum);
}

INLINE void NAME(block_of)(float *sums, const char *w, const int8_t *q, const block8 *b, int64_t rows, const int form) {
	const int head = form == FORM_Q8_0 ? 2 * PANEL : 4 * PANEL, size = form == FORM_Q8_0 ? 1 : 4;
	UNROLL for (int v = 0; v < PANEL / LANES; v++) {
		const VF d = HALVES(w + 2 * v * LANES), m = form == FORM_Q4_1 ? HALVES(w + 2 * PANEL + 2 * v * LANES) : d;
		VI u[8];
		NAME(spread)(u, w + head + size * v * LANES, form);
		float *s = sums + v * LANES;
		const int8_t *x = q;
		for (int64_t r = 0; r < rows; r++, s += PANEL, x += BLOCK) {
			const VF dot = OF(mul_ps)(NAME(dots)(u, x, b[r].total, form), OF(set1_ps)(b[r].d));
			VF sum = OF(fmadd_ps)(d, dot, OF(loadu_ps)(s));
			if (form == FORM_Q4_1)
				sum = OF(fmadd_ps)(m, OF(set1_ps)(b[r].s), sum);
			OF(storeu_ps)(s, sum);
		}
	}
}

static void NAME(block)(float *sums, const char *w, const int8_t *q, const block8 *b, int64_t rows, int form) {
	for (int i = 0; i < (form == FORM_Q4_1 ? 20 : 34) * PANEL; i += 64)
		__builtin_prefetch(w + i + AHEAD, 0, 3);
	if (form == FORM_Q4_1)
		NAME(block_of)(sums, w, q, b, rows, FORM_Q4_1);
	else
		NAME(block_of)(sums, w, q, b, rows, FORM_Q8_0);
}

#undef VF
#undef VI
#undef OF
#undef LOAD
#undef HALVES
#undef AND
#undef XOR
#endif

static void NAME(rounds8)(void *arg, int64_t from, int64_t to) {
	const linear8_job *j = arg;
	for (int64_t r = from; r < to; r++)
		for (int64_t i = 0; i < j->of.k / BLOCK; i++)
			NAME(round8)(j->q + (i * j->of.m + r) * BLOCK, &j->blocks[i * j->of.m + r], j->of.x + r * j->of.k + i * BLOCK, j->of.form);
}

static void NAME(panels8)(void *arg, int64_t from, int64_t to) {
	const linear8_job *j = arg;
	const int64_t bytes = panel_bytes(j->of.form, BLOCK), blocks = j->of.k / BLOCK, m = j->of.m;
	float sums[ROWS8 * PANEL] __attribute__((aligned(64))), edge[PANEL];
	for (int64_t panel = from; panel < to; panel++)
		for (int64_t first = 0; first < m; first += ROWS8) {
			const int64_t rows = m - first < ROWS8 ? m - first : ROWS8;
			const char *w = j->of.w + panel * blocks * bytes;
			for (int64_t r = 0; r < rows; r++)
				memcpy(sums + r * PANEL, start(&j->of, first + r, panel, edge), sizeof edge);
			for (int64_t i = 0; i < blocks; i++, w += bytes)
				NAME(block)(sums, w, j->q + (i * m + first) * BLOCK, j->blocks + i * m + first, rows, j->of.form);
			for (int64_t r = 0; r < rows; r++)
				finish(&j->of, first + r, panel, sums + r * PANEL);
		}
}

#undef INLINE
#undef UNROLL
