#!/usr/bin/env python3
"""What others make of lines of text: Hugging Face tokenizers, sentencepiece, tiktoken.

usage: oracle.py KIND FILE < LINES
LINES holds a text in base64 on each line. For each of them one line of JSON is written:
  plain     the ids of untrusted text: no added token is recognised
  template  the ids with added tokens recognised, but none put around the text; null where the oracle has no such thing
  text      what plain decodes to
KIND is json (tokenizer.json), sentencepiece (tokenizer.model) or qwen (qwen.tiktoken).

In one thing Hugging Face's model is not followed. A special token is an ordinary piece of its models too, so that a text that spells one
without its being recognised, or is normalised to one (a full-width <s>), gives its id. Here special pieces are renamed in the model
that is asked for plain, and template is null for lines with a full-width bracket.

A line that is not UTF-8 is seen as the product sees it: each byte that belongs to no character is U+FFFD. (Python's own
errors="replace" gives one U+FFFD for several bytes of one broken character; sentencepiece, given bytes, does as the product.)
"""
import base64
import json
import sys


def decode(raw):
    while raw:
        try:
            yield raw.decode()
            return
        except UnicodeDecodeError as e:
            yield raw[: e.start].decode() + "\ufffd" * (e.end - e.start)
            raw = raw[e.end :]


def hugging_face(path):
    from tokenizers import Tokenizer

    with open(path, encoding="utf-8") as f:
        whole = json.load(f)
    special = {a["id"] for a in whole["added_tokens"] if a["special"]}
    full = Tokenizer.from_str(json.dumps(whole))
    whole["added_tokens"] = []
    rename_special(whole["model"], special)
    bare = Tokenizer.from_str(json.dumps(whole))

    def ask(text):
        plain = bare.encode(text, add_special_tokens=False).ids
        return {
            "plain": plain,
            "template": None if "\uff1c" in text else full.encode(text, add_special_tokens=False).ids,
            "text": full.decode([i for i in plain if i not in special], skip_special_tokens=False),
        }

    return ask


def rename_special(model, special):
    hidden = lambda name, i: f"\U0010fffe{i}" if i in special and name != model.get("unk_token") else name
    if isinstance(model["vocab"], dict):
        model["vocab"] = {hidden(name, i): i for name, i in model["vocab"].items()}
    else:
        model["vocab"] = [[hidden(name, i), score] for i, (name, score) in enumerate(model["vocab"])]
    if "merges" in model:
        model["merges"] = [m for m in model["merges"] if "".join(m if isinstance(m, list) else m.split(" ")) in model["vocab"]]


def sentencepiece(path):
    import sentencepiece as sp

    model = sp.SentencePieceProcessor(model_file=path)

    def ask(text):
        ids = model.encode(text)
        return {"plain": ids, "template": None, "text": model.decode([i for i in ids if i != model.unk_id()])}

    return ask


QWEN = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def qwen(path):
    import tiktoken

    ranks = {}
    with open(path, "rb") as f:
        for line in f.read().splitlines():
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)]
    names += "<ref> </ref> <box> </box> <quad> </quad> <img> </img> <imgpad>".split()
    special = {s: i for i, s in enumerate(names, len(ranks))}
    model = tiktoken.Encoding("qwen", pat_str=QWEN, mergeable_ranks=ranks, special_tokens=special)

    def ask(text):
        ids = model.encode_ordinary(text)
        return {"plain": ids, "template": model.encode(text, allowed_special="all"), "text": model.decode(ids)}

    return ask


def main():
    ask = {"json": hugging_face, "sentencepiece": sentencepiece, "qwen": qwen}[sys.argv[1]](sys.argv[2])
    for line in sys.stdin:
        print(json.dumps(ask("".join(decode(base64.b64decode(line)))), ensure_ascii=True, separators=(",", ":")))


if __name__ == "__main__":
    main()
