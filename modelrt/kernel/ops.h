#ifndef CHATXRAY_OPS_H
#define CHATXRAY_OPS_H
#include <stddef.h>

// ops_register gives session options the operators of the domain "chatxray". api is ONNX Runtime's OrtApi, options an OrtSessionOptions.
// It returns 0, or -1 and the reason in why, which has size bytes. Callers may come together.
int ops_register(const void *api, void *options, char *why, size_t size);

// ops_api is the OrtApi of the ONNX Runtime that the process has loaded from path, or 0.
const void *ops_api(const char *path);

#endif
