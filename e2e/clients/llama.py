"""Serves a GGUF file with llama.cpp's own HTTP server (xllamacpp), prints its address, and ends with standard input.

usage: llama.py MODEL.gguf NAME KEY
"""

import sys

import xllamacpp as llama

params = llama.CommonParams()
params.model.path = sys.argv[1]
params.model_alias = {sys.argv[2]}
params.api_keys = [sys.argv[3]]
params.hostnames, params.port = ["127.0.0.1"], 0
params.n_ctx, params.n_parallel = 1024, 2
# On a busy machine threads that wait for each other take minutes where one takes seconds.
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.warmup = False
server = llama.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
