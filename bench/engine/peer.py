#!/usr/bin/env python3
"""Decodes with somebody else's engine, for BenchmarkPeers: `peer.py llama GGUF THREADS` or `peer.py genai FOLDER THREADS`.
For each line of the input, {"ids": prompt, "tokens": n}, it prints a line {"prefill": seconds, "decode": [seconds of each token], "ids": [greedy tokens]}."""
import ctypes
import json
import sys
import time

import numpy as np

CONTEXT = 1024


class Llama:
    def __init__(self, path: str, threads: int):
        import llama_cpp as lib
        self.lib = lib
        self.quiet = lib.llama_log_callback(lambda *_: None)
        lib.llama_log_set(self.quiet, ctypes.c_void_p(0))
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        options = lib.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = CONTEXT, 512, 512
        options.n_threads = options.n_threads_batch = threads
        self.context = lib.llama_init_from_model(self.model, options)
        self.words = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))

    def clear(self, total: int) -> None:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def feed(self, ids: list[int]) -> int:
        tokens = (self.lib.llama_token * len(ids))(*ids)
        if self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(tokens, len(ids))) != 0:
            sys.exit("llama_decode failed")
        return int(np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.context, -1), shape=(self.words,)).argmax())


class GenAI:
    def __init__(self, folder: str, threads: int):
        import onnxruntime_genai as lib
        self.lib = lib
        config = lib.Config(folder)
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self.model = lib.Model(config)

    def clear(self, total: int) -> None:
        options = self.lib.GeneratorParams(self.model)
        options.set_search_options(max_length=CONTEXT, min_length=total, do_sample=False)
        self.generator, self.first = self.lib.Generator(self.model, options), True

    def feed(self, ids: list[int]) -> int:
        if self.first:
            self.generator.append_tokens(np.array(ids, np.int32))
            self.first = False
        self.generator.generate_next_token()
        return int(self.generator.get_next_tokens()[0])


def main() -> None:
    kind, path, threads = sys.argv[1:]
    engine = {"llama": Llama, "genai": GenAI}[kind](path, int(threads))
    for line in sys.stdin:
        task = json.loads(line)
        engine.clear(len(task["ids"]) + task["tokens"])
        began = time.perf_counter()
        last = engine.feed(task["ids"])
        out = {"prefill": time.perf_counter() - began, "decode": [], "ids": [last]}
        for _ in range(task["tokens"]):
            began = time.perf_counter()
            last = engine.feed([last])
            out["decode"].append(time.perf_counter() - began)
            out["ids"].append(last)
        print(json.dumps(out), flush=True)


main()
