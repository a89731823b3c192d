#include "resample.h"
#include <string.h>

// The loops are written so that a compiler makes vector code of them; on x86-64 they are compiled a second time for AVX2 and FMA.

#define INLINE static inline __attribute__((always_inline))

// acc = sum of rows[i] × weights[i], four rows at a time so that acc is read and written once for four products.
INLINE void combine(float *restrict acc, int width, const float *ring, int stride, int slots, int row, const float *weights, int rows) {
	for (int x = 0; x < width; x++)
		acc[x] = 0;
	int i = 0;
	for (; i + 4 <= rows; i += 4) {
		const float *restrict a = ring + (long)((row + i) % slots) * stride;
		const float *restrict b = ring + (long)((row + i + 1) % slots) * stride;
		const float *restrict c = ring + (long)((row + i + 2) % slots) * stride;
		const float *restrict d = ring + (long)((row + i + 3) % slots) * stride;
		const float p = weights[i], q = weights[i + 1], r = weights[i + 2], s = weights[i + 3];
		for (int x = 0; x < width; x++)
			acc[x] += (p * a[x] + q * b[x]) + (r * c[x] + s * d[x]);
	}
	for (; i < rows; i++) {
		const float *restrict a = ring + (long)((row + i) % slots) * stride;
		const float p = weights[i];
		for (int x = 0; x < width; x++)
			acc[x] += p * a[x];
	}
}

// Eight sums side by side, which is what one vector register holds.
INLINE float dot(const float *restrict a, const float *restrict b, int n) {
	float s[8] = {0};
	int i = 0;
	for (; i + 8 <= n; i += 8)
		for (int j = 0; j < 8; j++)
			s[j] += a[i + j] * b[i + j];
	for (; i < n; i++)
		s[i & 7] += a[i] * b[i];
	return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

INLINE void line(float *out, float *acc, int left, int width, const float *ring, int stride, int slots, int row, const float *weights,
	int rows, const int32_t *first, const int32_t *count, const float *along, int most, int outputs) {
	combine(acc + left, width, ring, stride, slots, row, weights, rows);
	for (int o = 0; o < outputs; o++)
		out[o] = dot(along + (long)o * most, acc + first[o], count[o]);
}

// Four words with one load: the words are read at a quarter of the cost, and the lookups do not wait for them.
void shade_rows(float *ring, int stride, int slots, int row, int rows, const uint16_t *words, int columns, int width, const float *lut) {
	for (int y = 0; y < rows; y++) {
		float *restrict out = ring + (long)((row + y) % slots) * stride;
		const uint16_t *restrict in = words + (long)y * columns;
		int x = 0;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
		for (; x + 4 <= width; x += 4) {
			uint64_t four;
			memcpy(&four, in + x, sizeof four);
			const float a = lut[four & 0xFFFF], b = lut[four >> 16 & 0xFFFF], c = lut[four >> 32 & 0xFFFF], d = lut[four >> 48];
			out[x] = a, out[x + 1] = b, out[x + 2] = c, out[x + 3] = d;
		}
#endif
		for (; x < width; x++)
			out[x] = lut[in[x]];
	}
}

#define PARAMETERS                                                                                                       \
	float *out, float *acc, int left, int width, const float *ring, int stride, int slots, int row, const float *weights, \
		int rows, const int32_t *first, const int32_t *count, const float *along, int most, int outputs
#define ARGUMENTS out, acc, left, width, ring, stride, slots, row, weights, rows, first, count, along, most, outputs

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void line_avx2(PARAMETERS) { line(ARGUMENTS); }
#endif

void resample_line(PARAMETERS) {
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
		line_avx2(ARGUMENTS);
		return;
	}
#endif
	line(ARGUMENTS);
}
