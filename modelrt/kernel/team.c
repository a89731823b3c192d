#define _GNU_SOURCE
#include "team.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

// A loop is open while its number is in open. A thread counts itself in, looks whether the loop that it was called for is still open,
// and counts itself out. The owner closes the loop and waits until nobody is in: after that no thread touches it.
static struct {
	team_body body;
	void *arg;
	int64_t n, grain;
	_Atomic int64_t next __attribute__((aligned(64)));
	_Atomic uint32_t open __attribute__((aligned(64)));
	_Atomic uint32_t calls; // the number of the last loop; threads sleep on it
	_Atomic int inside __attribute__((aligned(64)));
	_Atomic int asleep;
} job;

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int threads = 1;

// Between two loops of one decoding step are some microseconds. A thread that has waited longer than about 50 sleeps.
enum { SPINS = 2000, MOST = 256 };

static inline void rest(void) {
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

// sleep_at returns when calls is no longer `seen`, or sooner. wake_all wakes who sleeps.
#if defined(__linux__)
static void sleep_at(uint32_t seen) { syscall(SYS_futex, &job.calls, FUTEX_WAIT_PRIVATE, seen, 0, 0, 0); }
static void wake_all(void) { syscall(SYS_futex, &job.calls, FUTEX_WAKE_PRIVATE, 1 << 20, 0, 0, 0); }
#else
static pthread_mutex_t bed = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;
static void sleep_at(uint32_t seen) {
	pthread_mutex_lock(&bed);
	while (atomic_load(&job.calls) == seen)
		pthread_cond_wait(&bell, &bed);
	pthread_mutex_unlock(&bed);
}
static void wake_all(void) {
	pthread_mutex_lock(&bed);
	pthread_cond_broadcast(&bell);
	pthread_mutex_unlock(&bed);
}
#endif

static void work(void) {
	for (;;) {
		const int64_t from = atomic_fetch_add_explicit(&job.next, job.grain, memory_order_relaxed);
		if (from >= job.n)
			return;
		const int64_t to = from + job.grain;
		job.body(job.arg, from, to < job.n ? to : job.n);
	}
}

static void *thread(void *unused) {
	uint32_t seen = 0;
	for (;;) {
		uint32_t call = atomic_load(&job.calls);
		for (int i = 0; call == seen && i < SPINS; i++) {
			rest();
			call = atomic_load(&job.calls);
		}
		if (call == seen) {
			atomic_fetch_add(&job.asleep, 1);
			sleep_at(seen);
			atomic_fetch_sub(&job.asleep, 1);
			continue;
		}
		seen = call;
		atomic_fetch_add(&job.inside, 1);
		if (atomic_load(&job.open) == call)
			work();
		atomic_fetch_sub(&job.inside, 1);
	}
	return unused;
}

void team_start(int wanted) {
	// Signals are for the program's own threads: Go's runtime would have to make these its own for each.
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_mutex_lock(&turn);
	for (int have = atomic_load(&threads); have < wanted && have < MOST; have++) {
		pthread_t t;
		if (pthread_create(&t, 0, thread, 0) != 0)
			break;
		pthread_detach(t);
		atomic_store(&threads, have + 1);
	}
	pthread_mutex_unlock(&turn);
	pthread_sigmask(SIG_SETMASK, &before, 0);
}

int team_size(void) { return atomic_load(&threads); }

void team_run(team_body body, void *arg, int64_t n, int64_t grain) {
	if (n <= grain || team_size() == 1 || pthread_mutex_trylock(&turn) != 0) {
		if (n > 0)
			body(arg, 0, n);
		return;
	}
	job.body = body;
	job.arg = arg;
	job.n = n;
	job.grain = grain;
	atomic_store(&job.next, 0);
	uint32_t call = atomic_load(&job.calls) + 1;
	if (call == 0) // 0 is no loop
		call = 1;
	atomic_store(&job.open, call);
	atomic_store(&job.calls, call);
	if (atomic_load(&job.asleep) > 0)
		wake_all();
	work();
	atomic_store(&job.open, 0);
	for (int i = 0; atomic_load(&job.inside) > 0; i++) {
		rest();
		if (i >= SPINS) { // the other thread may need this processor
			sched_yield();
			i = 0;
		}
	}
	pthread_mutex_unlock(&turn);
}
