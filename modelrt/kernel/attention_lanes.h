// Included by attention.c once for each kind of processor, with KIND and LANES; no header of its own.

typedef float NAME(lanes) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(words) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define VF NAME(lanes)
#define VI NAME(words)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define SELECT(mask, yes, no) ((VF)(((VI)(yes) & (mask)) | ((VI)(no) & ~(mask))))
#define ALL(value) ((VF){} + (value))
#define AT(p) (*(VF *)(p))
#define FROM(p) (*(const VF *)(p))

// exp for x <= 0 or small x > 0 (|x| < 87), to about 2 units in the last place: 2^n e^r with |r| <= ln 2 / 2, e^r by its series.
INLINE VF NAME(exponential)(VF x) {
	x = SELECT(x < -87.0f, ALL(-87.0f), x);
	x = SELECT(x > 87.0f, ALL(87.0f), x);
	const float magic = 0x1.8p23f; // adding it rounds to a whole number
	const VF n = (x * 0x1.715476p0f + magic) - magic;
	const VF r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
	VF p = ALL(1.0f / 5040);
	p = p * r + 1.0f / 720;
	p = p * r + 1.0f / 120;
	p = p * r + 1.0f / 24;
	p = p * r + 1.0f / 6;
	p = p * r + 0.5f;
	p = p * r + 1.0f;
	p = p * r + 1.0f;
	return p * (VF)((__builtin_convertvector(n, VI) + 127) << 23);
}

INLINE float NAME(total)(VF v) {
	float s = 0;
	UNROLL for (int i = 0; i < LANES; i++)
		s += v[i];
	return s;
}

INLINE float NAME(largest)(VF v) {
	float s = v[0];
	UNROLL for (int i = 1; i < LANES; i++)
		s = s > v[i] ? s : v[i];
	return s;
}

// scores writes q·k for G heads that share their keys, for the keys of whole blocks from ... to-1. s has `stride` floats for a head.
INLINE void NAME(scores)(float *s, int64_t stride, const float *q, const float *keys, int64_t dim, int64_t from, int64_t to, const int G) {
	for (int64_t b = from / KEYS; b * KEYS < to; b++) {
		const float *k = keys + b * dim * KEYS;
		VF acc[2][G][KEYS / LANES];
		UNROLL for (int e = 0; e < 2; e++)
			UNROLL for (int g = 0; g < G; g++)
				UNROLL for (int v = 0; v < KEYS / LANES; v++)
					acc[e][g][v] = (VF){0};
		for (int64_t i = 0; i < dim; i += 2) {
			UNROLL for (int e = 0; e < 2; e++) {
				if (i + e == dim)
					break;
				UNROLL for (int v = 0; v < KEYS / LANES; v++) {
					const VF u = FROM(k + (i + e) * KEYS + v * LANES);
					UNROLL for (int g = 0; g < G; g++)
						acc[e][g][v] += q[g * dim + i + e] * u;
				}
			}
		}
		UNROLL for (int g = 0; g < G; g++)
			UNROLL for (int v = 0; v < KEYS / LANES; v++)
				AT(s + g * stride + b * KEYS - from / KEYS * KEYS + v * LANES) = acc[0][g][v] + acc[1][g][v];
	}
}

// weigh turns n scores into shares that add up to one; those before lo and from hi on become zero. n is a multiple of KEYS.
INLINE void NAME(weigh)(float *s, int64_t n, int64_t lo, int64_t hi, float scale) {
	for (int64_t i = 0; i < lo; i++)
		s[i] = -INFINITY;
	for (int64_t i = hi; i < n; i++)
		s[i] = -INFINITY;
	VF most = FROM(s);
	for (int64_t i = LANES; i < n; i += LANES) {
		const VF v = FROM(s + i);
		most = SELECT(v > most, v, most);
	}
	const float top = NAME(largest)(most);
	VF sum = {0};
	for (int64_t i = 0; i < n; i += LANES) {
		const VF v = (FROM(s + i) - top) * scale;
		const VF e = SELECT(v < -87.0f, ALL(0.0f), NAME(exponential)(v));
		AT(s + i) = e;
		sum += e;
	}
	const float share = 1 / NAME(total)(sum);
	for (int64_t i = 0; i < n; i += LANES)
		AT(s + i) *= share;
}

// blend writes the sums of values times shares of G heads.
INLINE void NAME(blend)(float *out, const float *s, int64_t stride, const float *values, int64_t dim, int64_t n, const int G) {
	const int64_t pad = padded(dim);
	for (int64_t c = 0; c < dim; c += KEYS) {
		VF acc[2][G][KEYS / LANES];
		UNROLL for (int e = 0; e < 2; e++)
			UNROLL for (int g = 0; g < G; g++)
				UNROLL for (int v = 0; v < KEYS / LANES; v++)
					acc[e][g][v] = (VF){0};
		for (int64_t i = 0; i < n; i += 2)
			UNROLL for (int e = 0; e < 2; e++) {
				if (i + e == n)
					break;
				UNROLL for (int v = 0; v < KEYS / LANES; v++) {
					const VF u = FROM(values + (i + e) * pad + c + v * LANES);
					UNROLL for (int g = 0; g < G; g++)
						acc[e][g][v] += s[g * stride + i + e] * u;
				}
			}
		const int64_t wide = dim - c < KEYS ? dim - c : KEYS;
		UNROLL for (int g = 0; g < G; g++) {
			float whole[KEYS];
			UNROLL for (int v = 0; v < KEYS / LANES; v++)
				AT(whole + v * LANES) = acc[0][g][v] + acc[1][g][v];
			memcpy(out + g * dim + c, whole, wide * sizeof(float));
		}
	}
}

INLINE void NAME(heads)(const attention_job *j, float *s, int64_t t, int64_t h, int64_t first, const int G) {
	const attention_args *a = j->a;
	const int64_t dim = a->dim, to = a->upto[t];
	const int64_t lo = a->window && a->at[t] + 1 > a->window ? a->at[t] + 1 - a->window : 0, from = lo / KEYS * KEYS;
	const int64_t n = (to - from + KEYS - 1) / KEYS * KEYS, head = t * a->heads + h * (a->heads / a->kv_heads) + first;
	const float *keys = a->keys + (a->slot[t] * a->kv_heads + h) * a->capacity * dim;
	const float *values = a->values + ((a->slot[t] * a->kv_heads + h) * a->capacity + from) * padded(dim);
	NAME(scores)(s, n, j->q + head * dim, keys, dim, from, to, G);
	UNROLL for (int g = 0; g < G; g++)
		NAME(weigh)(s + g * n, n, lo - from, to - from, a->scale);
	NAME(blend)(a->out + head * dim, s, n, values, dim, to - from, G);
}

static void NAME(mix_body)(void *arg, int64_t first, int64_t last) {
	attention_job *j = arg;
	const attention_args *a = j->a;
	const int64_t group = a->heads / a->kv_heads;
	float *s = malloc(4 * (a->capacity + KEYS) * sizeof(float));
	if (!s) {
		j->failed = 1;
		return;
	}
	for (int64_t i = first; i < last; i++) {
		const int64_t t = i / a->kv_heads, h = i % a->kv_heads;
		for (int64_t g = 0; g < group;)
			switch (group - g) {
			case 1:
				NAME(heads)(j, s, t, h, g, 1);
				g += 1;
				break;
			case 2:
				NAME(heads)(j, s, t, h, g, 2);
				g += 2;
				break;
			case 3:
				NAME(heads)(j, s, t, h, g, 3);
				g += 3;
				break;
			default:
				NAME(heads)(j, s, t, h, g, 4);
				g += 4;
			}
	}
	free(s);
}

// act is one of the activations; what it cannot do on vectors of its own it does with libm, value after value.
INLINE VF NAME(act)(VF x, int kind) {
	switch (kind) {
	case BEFORE_SILU_GATE:
		return x / (1 + NAME(exponential)(-x));
	case BEFORE_QUICK_GELU:
		return x / (1 + NAME(exponential)(-1.702f * x));
	case BEFORE_GELU_TANH:
	case BEFORE_GELU_TANH_GATE: // tanh(z) = 1 - 2/(1 + e^2z)
		return x * (1 - 1 / (1 + NAME(exponential)(2 * 0.7978845608f * (x + 0.044715f * x * x * x))));
	case BEFORE_RELU:
		return SELECT(x > 0.0f, x, ALL(0.0f));
	default:
		for (int i = 0; i < LANES; i++)
			x[i] = 0.5f * x[i] * (1 + erff(x[i] * 0.70710678f));
		return x;
	}
}

static void NAME(before)(float *y, const float *x, int kind, const float *scale, const float *shift, float epsilon, int64_t rows, int64_t wide) {
	const int gates = before_gates(kind);
	for (int64_t r = 0; r < rows; r++, y += wide, x += gates ? 2 * wide : wide) {
		if (kind == BEFORE_RMS_NORM || kind == BEFORE_LAYER_NORM) {
			double mean = 0, square = 0;
			if (kind == BEFORE_LAYER_NORM) {
				for (int64_t i = 0; i < wide; i++)
					mean += x[i];
				mean /= wide;
			}
			for (int64_t i = 0; i < wide; i++)
				square += (x[i] - mean) * (x[i] - mean);
			const float by = 1 / sqrt(square / wide + epsilon), m = mean;
			for (int64_t i = 0; i < wide; i++)
				y[i] = (x[i] - m) * by * scale[i] + (shift ? shift[i] : 0);
			continue;
		}
		int64_t i = 0;
		for (; i + LANES <= wide; i += LANES) {
			VF v = NAME(act)(FROM(x + i), kind);
			if (gates)
				v *= FROM(x + wide + i);
			AT(y + i) = v;
		}
		for (; i < wide; i++) {
			const VF v = NAME(act)(ALL(x[i]), kind);
			y[i] = gates ? v[0] * x[wide + i] : v[0];
		}
	}
}

static float NAME(top)(const float *x, int64_t n) {
	VF most = ALL(-INFINITY);
	int64_t i = 0;
	for (; i + LANES <= n; i += LANES)
		most = SELECT(FROM(x + i) > most, FROM(x + i), most);
	float top = NAME(largest)(most);
	for (; i < n; i++)
		top = x[i] > top ? x[i] : top;
	return top;
}

static int64_t NAME(best)(const float *x, int64_t n) {
	const float top = NAME(top)(x, n);
	for (int64_t i = 0; i < n; i++)
		if (x[i] == top)
			return i;
	return 0;
}

static double NAME(log_probability)(const float *x, int64_t n, int64_t j) {
	enum { TOGETHER = 64 }; // vectors whose sum is exact enough in float32
	const float top = NAME(top)(x, n);
	double sum = 0;
	int64_t i = 0;
	while (i + LANES <= n) {
		VF part = ALL(0.0f);
		for (int v = 0; v < TOGETHER && i + LANES <= n; v++, i += LANES)
			part += NAME(exponential)(FROM(x + i) - top);
		sum += NAME(total)(part);
	}
	for (; i < n; i++)
		sum += exp(x[i] - top);
	return (double)x[j] - top - log(sum);
}

#undef VF
#undef VI
#undef INLINE
#undef UNROLL
#undef AT
#undef ALL
#undef SELECT
#undef FROM
