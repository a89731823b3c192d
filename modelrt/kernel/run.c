#include "run.h"
#include "ort/onnxruntime_c_api.h"
#include <string.h>

char *run_session(const void *ort, void *session, void *options, char **in_names, void **in, int ins, char **out_names, void **out, int outs) {
	const OrtApi *api = ort;
	OrtStatus *s = api->Run(session, options, (const char *const *)in_names, (const OrtValue *const *)in, ins, (const char *const *)out_names, outs,
		(OrtValue **)out);
	if (!s)
		return 0;
	char *why = strdup(api->GetErrorMessage(s));
	api->ReleaseStatus(s);
	return why;
}
