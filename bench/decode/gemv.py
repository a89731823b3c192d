"""The speed at which code of others reads memory on this machine: numpy's sum, and its BLAS's product of a matrix and a vector, which is
what a decoder does for each token. Two threads, the best of six rounds each."""

import os
import threading
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the threads are ours

import numpy as np  # noqa: E402

BYTES, WIDTH, ROUNDS = 538_000_000, 12_000, 6  # as many bytes as the default decoder has weights


def speed(work, matrix, threads):
    parts = np.array_split(matrix, threads)
    best = 1e9
    for _ in range(ROUNDS):
        running = [threading.Thread(target=work, args=(part,)) for part in parts]
        began = time.perf_counter()
        for t in running:
            t.start()
        for t in running:
            t.join()
        best = min(best, time.perf_counter() - began)
    return matrix.nbytes / best / 1e9


matrix = np.full((BYTES // 4 // WIDTH, WIDTH), 0.5, np.float32)
vector = np.ones(WIDTH, np.float32)
for name, work in (("numpy sum", lambda part: part.sum()), ("numpy's BLAS, matrix by vector", lambda part: part @ vector)):
    print(f"{name:32} {speed(work, matrix, os.cpu_count()):8.1f} GB/s")
