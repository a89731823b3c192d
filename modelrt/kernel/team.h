#ifndef CHATXRAY_TEAM_H
#define CHATXRAY_TEAM_H
#include <stdint.h>

// A team is threads that share one loop at a time. Whoever runs a loop works on it too and takes whatever the others have not
// begun, so that a thread without a processor delays nobody.
typedef void (*team_body)(void *arg, int64_t from, int64_t to);

// team_start makes threads-1 threads, once in a process; a later call may only raise their number. There are 256 at most,
// and fewer where the system gives no more.
void team_start(int threads);

// team_run calls body for pieces of 0 ... n-1, each of grain or fewer. Loops of callers that come while the team is at work run on the
// caller's thread alone.
void team_run(team_body body, void *arg, int64_t n, int64_t grain);

// team_size is the number of threads, the caller's included.
int team_size(void);

#endif
