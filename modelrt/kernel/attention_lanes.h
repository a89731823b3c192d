// Included by attention.c once for each kind of processor, with KIND and LANES; no header of its own.

typedef float NAME(lanes) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(words) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define VF NAME(lanes)
#define VI NAME(words)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define SELECT(mask, yes, no) ((VF)(((VI)(yes) & (mask)) | ((VI)(no) & ~(mask))))
#define ALL NAME(all)
#define AT(p) (*(VF *)(p))
#define FROM(p) (*(const VF *)(p))
#define FETCH(p) __builtin_prefetch((const char *)(p) + AHEAD, 0, 3)

INLINE VF NAME(all)(float value) {
#if LANES == 16
	return (VF)_mm512_set1_ps(value);
#elif LANES == 8
	return (VF)_mm256_set1_ps(value);
#else
	return (VF){value, value, value, value};
#endif
}

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

INLINE float NAME(largest)(VF v) {
	float s = v[0];
	UNROLL for (int i = 1; i < LANES; i++)
		s = s > v[i] ? s : v[i];
	return s;
}

// scores writes q·k for G heads that share their keys, for B blocks of keys. s has `stride` floats for a head. A score is the sum of the even
// and that of the odd products.
INLINE void NAME(scores)(float *s, int64_t stride, const float *q, const float *keys, int64_t dim, const int G, const int B) {
	VF acc[2][4][2 * KEYS / LANES];
	UNROLL for (int e = 0; e < 2; e++)
		UNROLL for (int g = 0; g < G; g++)
			UNROLL for (int v = 0; v < B * KEYS / LANES; v++)
				acc[e][g][v] = ALL(0.0f);
	for (int64_t i = 0; i < dim; i += 2) {
		UNROLL for (int e = 0; e < 2; e++) {
			if (i + e == dim)
				break;
			UNROLL for (int b = 0; b < B; b++)
				FETCH(keys + (b * dim + i + e) * KEYS);
			UNROLL for (int v = 0; v < B * KEYS / LANES; v++) {
				const VF u = FROM(keys + (v * LANES / KEYS * dim + i + e) * KEYS + v * LANES % KEYS);
				UNROLL for (int g = 0; g < G; g++)
					acc[e][g][v] += ALL(q[g * dim + i + e]) * u;
			}
		}
	}
	UNROLL for (int g = 0; g < G; g++)
		UNROLL for (int v = 0; v < B * KEYS / LANES; v++)
			AT(s + g * stride + v * LANES) = acc[0][g][v] + acc[1][g][v];
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
	VF parts[KEYS / LANES];
	float sum = 0, whole[KEYS];
	UNROLL for (int p = 0; p < KEYS / LANES; p++)
		parts[p] = ALL(0.0f);
	for (int64_t i = 0; i < n; i += KEYS)
		UNROLL for (int p = 0; p < KEYS / LANES; p++) {
			const VF v = (FROM(s + i + p * LANES) - top) * scale;
			const VF e = SELECT(v < -87.0f, ALL(0.0f), NAME(exponential)(v));
			AT(s + i + p * LANES) = e;
			parts[p] += e;
		}
	UNROLL for (int p = 0; p < KEYS / LANES; p++)
		AT(whole + p * LANES) = parts[p];
	for (int i = 0; i < KEYS; i++)
		sum += whole[i];
	const float share = 1 / sum;
	for (int64_t i = 0; i < n; i += LANES)
		AT(s + i) *= share;
}

// blend writes the sums of n values times shares of G heads, V vectors of each. values has rows of pad floats, out of dim, of which `wide` are
// wanted. A sum is that of the even and that of the odd places.
INLINE void NAME(blend)(float *out, int64_t dim, int64_t wide, const float *s, int64_t stride, const float *values, int64_t pad, int64_t n, const int G, const int V) {
	VF acc[2][4][4];
	UNROLL for (int e = 0; e < 2; e++)
		UNROLL for (int g = 0; g < G; g++)
			UNROLL for (int v = 0; v < V; v++)
				acc[e][g][v] = ALL(0.0f);
	for (int64_t i = 0; i < n; i += 2, values += 2 * pad) {
		UNROLL for (int e = 0; e < 2; e++) {
			if (i + e == n)
				break;
			UNROLL for (int v = 0; v < V; v++) {
				if (v * LANES % 16 == 0)
					FETCH(values + e * pad + v * LANES);
				const VF u = FROM(values + e * pad + v * LANES);
				UNROLL for (int g = 0; g < G; g++)
					acc[e][g][v] += ALL(s[g * stride + i + e]) * u;
			}
		}
	}
	UNROLL for (int g = 0; g < G; g++) {
		float whole[4 * LANES];
		UNROLL for (int v = 0; v < V; v++)
			AT(whole + v * LANES) = acc[0][g][v] + acc[1][g][v];
		memcpy(out + g * dim, whole, wide * sizeof(float));
	}
}

// WIDE is how many vectors of values G heads take at once, as many as there are registers for.
#if LANES == 16
#define WIDE(G) ((G) == 4 ? 2 : 4)
#define TOGETHER 2
#else
#define WIDE(G) (KEYS / LANES)
#define TOGETHER 1
#endif

INLINE void NAME(heads)(const attention_job *j, float *s, int64_t t, int64_t h, int64_t first, const int G) {
	const attention_args *a = j->a;
	const int64_t dim = a->dim, pad = padded(dim), to = a->upto[t];
	const int64_t lo = a->window && a->at[t] + 1 > a->window ? a->at[t] + 1 - a->window : 0, from = lo / KEYS * KEYS;
	const int64_t n = (to - from + KEYS - 1) / KEYS * KEYS, head = t * a->heads + h * (a->heads / a->kv_heads) + first;
	const float *q = j->q + head * dim, *keys = a->keys + ((a->slot[t] * a->kv_heads + h) * a->capacity + from) * dim;
	int64_t i = 0;
	for (; i + TOGETHER * KEYS <= n; i += TOGETHER * KEYS)
		NAME(scores)(s + i, n, q, keys + i * dim, dim, G, TOGETHER);
	for (; i < n; i += KEYS)
		NAME(scores)(s + i, n, q, keys + i * dim, dim, G, 1);
	UNROLL for (int g = 0; g < G; g++)
		NAME(weigh)(s + g * n, n, lo - from, to - from, a->scale);
	const float *values = a->values + ((a->slot[t] * a->kv_heads + h) * a->capacity + from) * pad;
	float *out = a->out + head * dim;
	for (int64_t c = 0; c < dim;) {
		const int wide = pad - c >= WIDE(G) * LANES;
		const int64_t step = wide ? WIDE(G) * LANES : KEYS, left = dim - c < step ? dim - c : step;
		if (wide)
			NAME(blend)(out + c, dim, left, s, n, values + c, pad, to - from, G, WIDE(G));
		else
			NAME(blend)(out + c, dim, left, s, n, values + c, pad, to - from, G, KEYS / LANES);
		c += step;
	}
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

// act is one of the activations.
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
		return SELECT(x < 0.0f, ALL(0.0f), x);
	default: { // x (1 + erf(x/√2))/2, with Abramowitz and Stegun's 7.1.26 for erf of |x|, to 1.5e-7
		const VF z = SELECT(x < 0.0f, -x, x) * 0.70710678f, t = 1 / (1 + 0.3275911f * z);
		const VF tail = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f)))) * NAME(exponential)(-z * z);
		return 0.5f * x * SELECT(x < 0.0f, tail, 2 - tail);
	}
	}
}

// PARTS sums run side by side in a norm; they are added up as float64.
enum { NAME(PARTS) = 32 };

// sum adds up (x - mean)^2, or x where power is 1.
INLINE double NAME(sum)(const float *x, int64_t n, float mean, const int power) {
	VF acc[NAME(PARTS) / LANES];
	float parts[NAME(PARTS)];
	UNROLL for (int v = 0; v < NAME(PARTS) / LANES; v++)
		acc[v] = ALL(0.0f);
	int64_t i = 0;
	for (; i + NAME(PARTS) <= n; i += NAME(PARTS))
		UNROLL for (int v = 0; v < NAME(PARTS) / LANES; v++) {
			const VF d = FROM(x + i + v * LANES) - mean;
			acc[v] += power == 1 ? (VF)d : (VF)(d * d);
		}
	UNROLL for (int v = 0; v < NAME(PARTS) / LANES; v++)
		AT(parts + v * LANES) = acc[v];
	double s = 0;
	for (; i < n; i++)
		s += power == 1 ? x[i] : (double)(x[i] - mean) * (x[i] - mean);
	for (int p = 0; p < NAME(PARTS); p++)
		s += parts[p];
	return s;
}

static void NAME(norm)(float *y, const float *x, int kind, const float *scale, const float *shift, float epsilon, int64_t wide) {
	const float mean = kind == BEFORE_LAYER_NORM ? NAME(sum)(x, wide, 0, 1) / wide : 0;
	const float by = 1 / sqrt(NAME(sum)(x, wide, mean, 2) / wide + epsilon);
	int64_t i = 0;
	for (; i + LANES <= wide; i += LANES)
		AT(y + i) = (FROM(x + i) - mean) * by * FROM(scale + i) + (shift ? FROM(shift + i) : ALL(0.0f));
	for (; i < wide; i++)
		y[i] = (x[i] - mean) * by * scale[i] + (shift ? shift[i] : 0);
}

static void NAME(before)(float *y, const float *x, int kind, const float *scale, const float *shift, float epsilon, int64_t rows, int64_t wide) {
	const int gates = before_gates(kind);
	for (int64_t r = 0; r < rows; r++, y += wide, x += gates ? 2 * wide : wide) {
		if (kind == BEFORE_RMS_NORM || kind == BEFORE_LAYER_NORM) {
			NAME(norm)(y, x, kind, scale, shift, epsilon, wide);
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
	enum { RUN = 64 * KEYS }; // so many in KEYS sums are exact enough in float32
	const float top = NAME(top)(x, n);
	double sum = 0;
	int64_t i = 0;
	for (; i + KEYS <= n;) {
		VF parts[KEYS / LANES];
		float whole[KEYS];
		UNROLL for (int p = 0; p < KEYS / LANES; p++)
			parts[p] = ALL(0.0f);
		const int64_t end = n - i < RUN ? n - n % KEYS : i + RUN;
		for (; i + KEYS <= end; i += KEYS)
			UNROLL for (int p = 0; p < KEYS / LANES; p++)
				parts[p] += NAME(exponential)(FROM(x + i + p * LANES) - top);
		UNROLL for (int p = 0; p < KEYS / LANES; p++)
			AT(whole + p * LANES) = parts[p];
		for (int p = 0; p < KEYS; p++)
			sum += whole[p];
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
#undef FETCH
#undef WIDE
#undef TOGETHER
