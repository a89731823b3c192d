#ifndef CHATXRAY_DEVICE_H
#define CHATXRAY_DEVICE_H
#include <stddef.h>
#include <stdint.h>

// Calls of OrtApi about memory of a device, which the wrapper lacks. Each returns 0, or a message that the caller frees.

// device_open finds the allocator of a session for the memory called name ("Cpu", "Cuda") of device id, and tells the memory.
char *device_open(const void *api, void *session, const char *name, int id, void **info, void **allocator);
void device_close(const void *api, void *info, void *allocator);

char *device_alloc(const void *api, void *allocator, size_t bytes, void **memory);
void device_free(const void *api, void *allocator, void *memory);

// device_tensor makes a tensor over memory, which must outlive it. element is an ONNXTensorElementDataType.
char *device_tensor(const void *api, void *info, void *memory, size_t bytes, const int64_t *shape, size_t rank, int element, void **value);
void device_release(const void *api, void *value);

// device_limit makes an arena of at most bytes for the CPU, from which sessions with session.use_env_allocators take their memory. A process
// has one.
char *device_limit(const void *api, size_t bytes);

#endif
