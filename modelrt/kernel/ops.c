#define _GNU_SOURCE
#include "ops.h"
#include "attention.h"
#include "linear.h"
#include "ort/onnxruntime_c_api.h"
#include "team.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The operators check every shape before they touch memory: a graph is outside input.

static const OrtApi *api; // set once, before the first operator is known to ONNX Runtime

#define TRY(call)                                                                                                                  \
	do {                                                                                                                           \
		OrtStatus *status_ = (call);                                                                                               \
		if (status_)                                                                                                               \
			return status_;                                                                                                        \
	} while (0)

static OrtStatus *refuse(const char *why) { return api->CreateStatus(ORT_INVALID_ARGUMENT, why); }

enum { MAX_RANK = 4 };

// tensor is an input, all zeros where it was left out.
typedef struct tensor {
	void *data;
	int given;
	int64_t shape[MAX_RANK], count;
	size_t rank;
} tensor;

static OrtStatus *input(OrtKernelContext *c, size_t index, tensor *t) {
	const OrtValue *v = 0;
	memset(t, 0, sizeof *t);
	size_t given;
	TRY(api->KernelContext_GetInputCount(c, &given));
	if (index >= given)
		return 0;
	TRY(api->KernelContext_GetInput(c, index, &v));
	if (!v)
		return 0;
	OrtTensorTypeAndShapeInfo *info;
	TRY(api->GetTensorTypeAndShape(v, &info));
	OrtStatus *s = api->GetDimensionsCount(info, &t->rank);
	if (!s && t->rank > MAX_RANK)
		s = refuse("chatxray: an input has more than four dimensions");
	if (!s)
		s = api->GetDimensions(info, t->shape, t->rank);
	api->ReleaseTensorTypeAndShapeInfo(info);
	if (s)
		return s;
	t->given = 1;
	t->count = 1;
	for (size_t i = 0; i < t->rank; i++)
		if (__builtin_mul_overflow(t->count, t->shape[i], &t->count))
			return refuse("chatxray: an input is too large");
	// Caches are written in place: what a kernel gets is const by ONNX Runtime's signature, the memory is its caller's.
	return api->GetTensorMutableData((OrtValue *)v, &t->data);
}

// not_fixed refuses an input that is part of the graph, where the operator writes to it: such memory may be a file's.
static OrtStatus *not_fixed(const OrtKernelInfo *info, size_t index) {
	int constant = 0;
	const OrtValue *value;
	TRY(api->KernelInfoGetConstantInput_tensor(info, index, &constant, &value));
	return constant ? refuse("chatxray.Attention: a cache is a constant of the graph") : 0;
}

static OrtStatus *integer(const OrtKernelInfo *info, const char *name, int64_t *value) { return api->KernelInfoGetAttribute_int64(info, name, value); }

static ONNXTensorElementDataType output_type(const OrtCustomOp *op, size_t index) {
	(void)op, (void)index;
	return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}
static size_t one_output(const OrtCustomOp *op) { return (void)op, 1; }
static OrtCustomOpInputOutputCharacteristic must(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, INPUT_OUTPUT_REQUIRED; }
static const char *on_cpu(const OrtCustomOp *op) { return (void)op, "CPUExecutionProvider"; }
static int no_arity(const OrtCustomOp *op) { return (void)op, 0; }
static OrtMemType memory(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, OrtMemTypeDefault; }
static int first_version(const OrtCustomOp *op) { return (void)op, 1; }
static int last_version(const OrtCustomOp *op) { return (void)op, 0x7fffffff; }
static void destroy(void *kernel) { free(kernel); }

// Linear(x [.., K'], w, scale?, shift?, bias?, residual?, lora_a?, lora_b?): before(x) W + bias + residual + before(x) A B. w is packed
// (linear.h) and uint8; scale and shift [K] belong to a norm before; residual is [.., N]; A [.., PANEL] of rank r is packed as FORM_F32 of [K, r], B
// of [r, N]; both may be empty. Attributes: form, before, k, n, epsilon. Where the session's entry chatxray.activations is int8, before(x) is rounded to 8
// bits for the product with a W of blocks (linear8).
typedef struct linear_kernel {
	int64_t form, before, k, n;
	float epsilon;
	int eight;
} linear_kernel;

static OrtStatus *linear_create(const OrtCustomOp *op, const OrtApi *unused, const OrtKernelInfo *info, void **kernel) {
	(void)op, (void)unused;
	linear_kernel l;
	TRY(integer(info, "form", &l.form));
	TRY(integer(info, "before", &l.before));
	TRY(integer(info, "k", &l.k));
	TRY(integer(info, "n", &l.n));
	TRY(api->KernelInfoGetAttribute_float(info, "epsilon", &l.epsilon));
	if (packed_bytes(l.form, l.k, l.n) < 0 || l.before < 0 || l.before >= BEFORES)
		return refuse("chatxray.Linear: form, before, k or n is wrong");
	OrtKeyValuePairs *entries;
	TRY(api->KernelInfo_GetConfigEntries(info, &entries));
	const char *activations = api->GetKeyValue(entries, "chatxray.activations");
	l.eight = activations && !strcmp(activations, "int8") && l.form != FORM_F32;
	api->ReleaseKeyValuePairs(entries);
	if (!(*kernel = malloc(sizeof l)))
		return api->CreateStatus(ORT_FAIL, "chatxray.Linear: no memory");
	memcpy(*kernel, &l, sizeof l);
	return 0;
}

static OrtStatus *linear_compute(void *kernel, OrtKernelContext *c) {
	const linear_kernel *l = kernel;
	enum { X, W, SCALE, SHIFT, BIAS, RESIDUAL, LORA_A, LORA_B, INPUTS };
	tensor in[INPUTS];
	for (int i = 0; i < INPUTS; i++)
		TRY(input(c, i, &in[i]));
	const int64_t wide = before_gates(l->before) ? 2 * l->k : l->k;
	const int normed = l->before == BEFORE_RMS_NORM || l->before == BEFORE_LAYER_NORM;
	if (in[X].rank < 1 || in[X].shape[in[X].rank - 1] != wide)
		return refuse("chatxray.Linear: x is not as wide as k says");
	if (in[W].count != packed_bytes(l->form, l->k, l->n) || (uintptr_t)in[W].data % 4 != 0)
		return refuse("chatxray.Linear: w is not as large as form, k and n say, or not at a multiple of 4");
	if (in[SCALE].given != normed || (normed && in[SCALE].count != l->k))
		return refuse("chatxray.Linear: scale does not fit");
	if (in[SHIFT].given && (!normed || in[SHIFT].count != l->k))
		return refuse("chatxray.Linear: shift does not fit");
	if (in[BIAS].given && in[BIAS].count != l->n)
		return refuse("chatxray.Linear: bias does not fit");
	const int64_t rows = in[X].count / wide;
	if (in[RESIDUAL].given && in[RESIDUAL].count != rows * l->n)
		return refuse("chatxray.Linear: the residual does not fit");
	int64_t rank = 0;
	if (in[LORA_A].count > 0 || in[LORA_B].count > 0) {
		rank = in[LORA_B].count / ((l->n + PANEL - 1) / PANEL * PANEL);
		if (rank <= 0 || rank > 1024 || in[LORA_B].count * 4 != packed_bytes(FORM_F32, rank, l->n) || in[LORA_A].count * 4 != packed_bytes(FORM_F32, l->k, rank))
			return refuse("chatxray.Linear: the LoRA does not fit");
	}
	int64_t shape[MAX_RANK];
	memcpy(shape, in[X].shape, sizeof shape);
	shape[in[X].rank - 1] = l->n;
	OrtValue *value;
	TRY(api->KernelContext_GetOutput(c, 0, shape, in[X].rank, &value));
	float *y;
	TRY(api->GetTensorMutableData(value, (void **)&y));
	if (rows == 0)
		return 0;
	const float *x = in[X].data;
	float *made = 0;
	if (l->before != BEFORE_NOTHING || rank > 0) {
		const int64_t most = rows * (l->k + rank);
		if (!(made = malloc(most * sizeof(float))))
			return api->CreateStatus(ORT_FAIL, "chatxray.Linear: no memory");
		if (l->before != BEFORE_NOTHING) {
			before(made, x, l->before, in[SCALE].data, in[SHIFT].data, l->epsilon, rows, l->k);
			x = made;
		}
	}
	if (in[RESIDUAL].given)
		memcpy(y, in[RESIDUAL].data, rows * l->n * sizeof(float));
	if (in[BIAS].given)
		for (int64_t r = 0; r < rows; r++)
			for (int64_t i = 0; i < l->n; i++)
				y[r * l->n + i] = ((float *)in[BIAS].data)[i] + (in[RESIDUAL].given ? y[r * l->n + i] : 0);
	int failed = (l->eight ? linear8 : linear)(y, x, in[W].data, l->form, rows, l->k, l->n, in[RESIDUAL].given || in[BIAS].given);
	if (rank > 0) {
		float *low = made + rows * l->k;
		failed |= linear(low, x, in[LORA_A].data, FORM_F32, rows, l->k, rank, 0) | linear(y, low, in[LORA_B].data, FORM_F32, rows, rank, l->n, 1);
	}
	free(made);
	return failed ? api->CreateStatus(ORT_FAIL, "chatxray.Linear: no memory") : 0;
}

static const char *linear_name(const OrtCustomOp *op) { return (void)op, "Linear"; }
static size_t linear_inputs(const OrtCustomOp *op) { return (void)op, 8; }
static ONNXTensorElementDataType linear_type(const OrtCustomOp *op, size_t index) {
	(void)op;
	return index == 1 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}
static OrtCustomOpInputOutputCharacteristic linear_need(const OrtCustomOp *op, size_t index) {
	(void)op;
	return index < 2 ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
}

// Attention(qkv [T, (heads+2 kv_heads) dim], keys, values, slot [T], at [T], upto [T], cos? [T, rotary/2], sin?): attention.h. The caches are
// written in place. Attributes: heads, kv_heads, dim, window, scale.
typedef struct attention_kernel {
	int64_t heads, kv_heads, dim, window;
	float scale;
} attention_kernel;

static OrtStatus *attention_create(const OrtCustomOp *op, const OrtApi *unused, const OrtKernelInfo *info, void **kernel) {
	(void)op, (void)unused;
	attention_kernel a;
	TRY(integer(info, "heads", &a.heads));
	TRY(integer(info, "kv_heads", &a.kv_heads));
	TRY(integer(info, "dim", &a.dim));
	TRY(integer(info, "window", &a.window));
	TRY(api->KernelInfoGetAttribute_float(info, "scale", &a.scale));
	if (a.heads <= 0 || a.heads > 1024 || a.kv_heads <= 0 || a.heads % a.kv_heads || a.dim <= 0 || a.dim > MAX_DIM || a.window < 0 || !(a.scale > 0))
		return refuse("chatxray.Attention: heads, kv_heads, dim, window or scale is wrong");
	TRY(not_fixed(info, 1));
	TRY(not_fixed(info, 2));
	if (!(*kernel = malloc(sizeof a)))
		return api->CreateStatus(ORT_FAIL, "chatxray.Attention: no memory");
	memcpy(*kernel, &a, sizeof a);
	return 0;
}

static OrtStatus *attention_compute(void *kernel, OrtKernelContext *c) {
	const attention_kernel *k = kernel;
	enum { QKV, KEYS_, VALUES, SLOT, AT, UPTO, COS, SIN, INPUTS };
	tensor in[INPUTS];
	for (int i = 0; i < INPUTS; i++)
		TRY(input(c, i, &in[i]));
	const int64_t pad = (k->dim + KEYS - 1) / KEYS * KEYS, tokens = in[SLOT].count;
	if (in[QKV].rank != 2 || in[QKV].shape[0] != tokens || in[QKV].shape[1] != (k->heads + 2 * k->kv_heads) * k->dim || in[AT].count != tokens || in[UPTO].count != tokens)
		return refuse("chatxray.Attention: qkv, slot, at and upto do not fit");
	if (in[VALUES].rank != 4 || in[VALUES].count <= 0 || in[VALUES].shape[1] != k->kv_heads || in[VALUES].shape[3] != pad || in[VALUES].shape[2] % KEYS ||
		in[KEYS_].count != in[VALUES].shape[0] * k->kv_heads * in[VALUES].shape[2] * k->dim)
		return refuse("chatxray.Attention: the caches do not fit");
	if (in[COS].given != in[SIN].given || in[COS].count != in[SIN].count || (in[COS].given && (in[COS].rank != 2 || in[COS].shape[0] != tokens || 2 * in[COS].shape[1] > k->dim)))
		return refuse("chatxray.Attention: cos and sin do not fit");
	const int64_t slots = in[VALUES].shape[0], capacity = in[VALUES].shape[2];
	const int32_t *slot = in[SLOT].data, *at = in[AT].data, *upto = in[UPTO].data;
	int32_t *next = calloc(slots + 1, sizeof *next); // of each slot
	if (!next)
		return api->CreateStatus(ORT_FAIL, "chatxray.Attention: no memory");
	for (int64_t t = 0; t < tokens; t++) {
		if (slot[t] < 0 || slot[t] >= slots || at[t] < next[slot[t]] || at[t] >= capacity || upto[t] <= at[t] || upto[t] > capacity) {
			free(next);
			return refuse("chatxray.Attention: a token lies outside the caches, or not behind the one before it");
		}
		next[slot[t]] = at[t] + 1;
	}
	free(next);
	const int64_t shape[] = {tokens, k->heads * k->dim};
	OrtValue *value;
	TRY(api->KernelContext_GetOutput(c, 0, shape, 2, &value));
	attention_args a = {
		.qkv = in[QKV].data, .cosine = in[COS].data, .sine = in[SIN].data, .keys = in[KEYS_].data, .values = in[VALUES].data,
		.slot = slot, .at = at, .upto = upto, .tokens = tokens, .heads = k->heads, .kv_heads = k->kv_heads, .dim = k->dim,
		.rotary = in[COS].given ? 2 * in[COS].shape[1] : 0, .capacity = capacity, .window = k->window, .scale = k->scale,
	};
	TRY(api->GetTensorMutableData(value, (void **)&a.out));
	return attention(&a) ? api->CreateStatus(ORT_FAIL, "chatxray.Attention: no memory") : 0;
}

static const char *attention_name(const OrtCustomOp *op) { return (void)op, "Attention"; }
static size_t attention_inputs(const OrtCustomOp *op) { return (void)op, 8; }
static ONNXTensorElementDataType attention_type(const OrtCustomOp *op, size_t index) {
	(void)op;
	return index >= 3 && index <= 5 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}
static OrtCustomOpInputOutputCharacteristic attention_need(const OrtCustomOp *op, size_t index) {
	(void)op;
	return index < 6 ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
}

// Embed(ids int64 [T], w): rows of a table that is a packed matrix [K, N], column for column. Attributes as Linear's.
typedef struct embed_job {
	float *y;
	const int64_t *ids;
	const void *w;
	const linear_kernel *l;
} embed_job;

static void embed_body(void *arg, int64_t from, int64_t to) {
	const embed_job *j = arg;
	for (int64_t i = from; i < to; i++)
		packed_column(j->y + i * j->l->k, j->w, j->l->form, j->l->k, j->ids[i]);
}

static OrtStatus *embed_compute(void *kernel, OrtKernelContext *c) {
	const linear_kernel *l = kernel;
	tensor ids, w;
	TRY(input(c, 0, &ids));
	TRY(input(c, 1, &w));
	if (w.count != packed_bytes(l->form, l->k, l->n) || (uintptr_t)w.data % 4 != 0 || ids.rank >= MAX_RANK)
		return refuse("chatxray.Embed: ids or w do not fit");
	embed_job j = {0, ids.data, w.data, l};
	for (int64_t i = 0; i < ids.count; i++)
		if (j.ids[i] < 0 || j.ids[i] >= l->n)
			return refuse("chatxray.Embed: an id is outside the table");
	int64_t shape[MAX_RANK];
	memcpy(shape, ids.shape, sizeof shape);
	shape[ids.rank] = l->k;
	OrtValue *value;
	TRY(api->KernelContext_GetOutput(c, 0, shape, ids.rank + 1, &value));
	TRY(api->GetTensorMutableData(value, (void **)&j.y));
	team_run(embed_body, &j, ids.count, 8);
	return 0;
}

static const char *embed_name(const OrtCustomOp *op) { return (void)op, "Embed"; }
static size_t embed_inputs(const OrtCustomOp *op) { return (void)op, 2; }
static ONNXTensorElementDataType embed_type(const OrtCustomOp *op, size_t index) {
	(void)op;
	return index == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
}

#define COMMON                                                                                                                     \
	.version = ORT_API_VERSION, .GetExecutionProviderType = on_cpu, .GetOutputType = output_type, .GetOutputTypeCount = one_output, \
	.KernelDestroy = destroy, .GetOutputCharacteristic = must, .GetInputMemoryType = memory, .GetVariadicInputMinArity = no_arity,  \
	.GetVariadicInputHomogeneity = no_arity, .GetVariadicOutputMinArity = no_arity, .GetVariadicOutputHomogeneity = no_arity,       \
	.GetStartVersion = first_version, .GetEndVersion = last_version

static const OrtCustomOp ops[] = {
	{COMMON, .GetName = linear_name, .GetInputTypeCount = linear_inputs, .GetInputType = linear_type, .GetInputCharacteristic = linear_need,
	 .CreateKernelV2 = linear_create, .KernelComputeV2 = linear_compute},
	{COMMON, .GetName = attention_name, .GetInputTypeCount = attention_inputs, .GetInputType = attention_type, .GetInputCharacteristic = attention_need,
	 .CreateKernelV2 = attention_create, .KernelComputeV2 = attention_compute},
	{COMMON, .GetName = embed_name, .GetInputTypeCount = embed_inputs, .GetInputType = embed_type, .GetInputCharacteristic = must,
	 .CreateKernelV2 = linear_create, .KernelComputeV2 = embed_compute},
};

static OrtStatus *add_all(OrtSessionOptions *options) {
	static OrtCustomOpDomain *domain; // as long as the process, because sessions refer to it
	if (!domain) {
		OrtCustomOpDomain *d;
		TRY(api->CreateCustomOpDomain("chatxray", &d));
		for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
			OrtStatus *s = api->CustomOpDomain_Add(d, &ops[i]);
			if (s) {
				api->ReleaseCustomOpDomain(d);
				return s;
			}
		}
		domain = d;
	}
	return api->AddCustomOpDomain(options, domain);
}

int ops_register(const void *ort, void *options, char *why, size_t size) {
	static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
	pthread_mutex_lock(&one);
	if (!api)
		api = ort;
	OrtStatus *s = api == ort ? add_all(options) : refuse("another ONNX Runtime has them already");
	pthread_mutex_unlock(&one);
	if (!s)
		return 0;
	snprintf(why, size, "%s", api->GetErrorMessage(s));
	api->ReleaseStatus(s);
	return -1;
}

const void *ops_api(const char *path) {
	void *library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
	if (!library)
		return 0;
	const OrtApiBase *(*base)(void) = (const OrtApiBase *(*)(void))dlsym(library, "OrtGetApiBase");
	const void *found = base ? base()->GetApi(ORT_API_VERSION) : 0;
	dlclose(library); // the wrapper keeps it loaded
	return found;
}
