#include "device.h"
#include "ort/onnxruntime_c_api.h"
#include <string.h>

static char *told(const OrtApi *ort, OrtStatus *s) {
	if (!s)
		return 0;
	char *why = strdup(ort->GetErrorMessage(s));
	ort->ReleaseStatus(s);
	return why;
}

char *device_open(const void *api, void *session, const char *name, int id, void **info, void **allocator) {
	const OrtApi *ort = api;
	OrtMemoryInfo *i = 0;
	OrtAllocator *a = 0;
	char *why = told(ort, ort->CreateMemoryInfo(name, OrtArenaAllocator, id, OrtMemTypeDefault, &i));
	if (why)
		return why;
	why = told(ort, ort->CreateAllocator(session, i, &a));
	if (why) {
		ort->ReleaseMemoryInfo(i);
		return why;
	}
	*info = i;
	*allocator = a;
	return 0;
}

void device_close(const void *api, void *info, void *allocator) {
	const OrtApi *ort = api;
	ort->ReleaseAllocator(allocator);
	ort->ReleaseMemoryInfo(info);
}

char *device_alloc(const void *api, void *allocator, size_t bytes, void **memory) {
	const OrtApi *ort = api;
	*memory = 0;
	char *why = told(ort, ort->AllocatorAlloc(allocator, bytes, memory));
	return why || *memory ? why : strdup("Failed to allocate memory: the allocator gave none");
}

void device_free(const void *api, void *allocator, void *memory) {
	const OrtApi *ort = api;
	OrtStatus *s = ort->AllocatorFree(allocator, memory);
	if (s)
		ort->ReleaseStatus(s);
}

char *device_tensor(const void *api, void *info, void *memory, size_t bytes, const int64_t *shape, size_t rank, int element, void **value) {
	const OrtApi *ort = api;
	return told(ort, ort->CreateTensorWithDataAsOrtValue(info, memory, bytes, shape, rank, element, (OrtValue **)value));
}

void device_release(const void *api, void *value) {
	const OrtApi *ort = api;
	ort->ReleaseValue(value);
}

char *device_limit(const void *api, size_t bytes) {
	const OrtApi *ort = api;
	OrtEnv *env = 0;
	OrtMemoryInfo *info = 0;
	OrtArenaCfg *arena = 0;
	const char *keys[] = {"max_mem", "arena_extend_strategy"};
	const size_t values[] = {bytes, 1}; // kSameAsRequested
	// A process has one environment: this is the wrapper's, counted once more.
	OrtStatus *s = ort->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "chatxray", &env);
	if (!s)
		s = ort->CreateMemoryInfo("Cpu", OrtArenaAllocator, 0, OrtMemTypeDefault, &info);
	if (!s)
		s = ort->CreateArenaCfgV2(keys, values, 2, &arena);
	if (!s)
		s = ort->CreateAndRegisterAllocator(env, info, arena);
	if (arena)
		ort->ReleaseArenaCfg(arena);
	if (info)
		ort->ReleaseMemoryInfo(info);
	if (env)
		ort->ReleaseEnv(env);
	return told(ort, s);
}
