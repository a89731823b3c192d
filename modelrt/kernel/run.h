#ifndef CHATXRAY_RUN_H
#define CHATXRAY_RUN_H

// run_session is OrtApi's Run. It returns 0, or a message that the caller frees.
char *run_session(const void *api, void *session, void *options, char **in_names, void **in, int ins, char **out_names, void **out, int outs);

#endif
