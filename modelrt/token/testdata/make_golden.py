#!/usr/bin/env python3
"""Makes the small vocabularies of modelrt/token and what the oracles say of 10,000 lines with each of them.

usage: make_golden.py LINES BUNDLE [--train]
LINES is made by: go test ./modelrt/token -run TestLines -args -lines LINES. BUNDLE is the default bundle's tokenizer.json.
With --train the vocabularies are trained anew, on some of the lines; without, those in this folder are asked.
Beside this script are written
  NAME.gz      the vocabularies: tokenizer.json, tokenizer.model or *.tiktoken
  regex.json   how Oniguruma, within Hugging Face tokenizers, cuts some texts by some expressions
  NAME.golden  for each line three bytes: the beginning of the sha256 of what oracle.py says, as digest() writes it

needs: tokenizers==0.22.2 sentencepiece==0.2.1 tiktoken==0.14.0
"""
import base64
import collections
import gzip
import hashlib
import io
import json
import pathlib
import sys
import tempfile

import sentencepiece as sp
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import oracle

HERE = pathlib.Path(__file__).parent
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# GPT-4o's and Mistral's Tekken's: capitals, marks.
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
BYTES = [f"<0x{i:02X}>" for i in range(256)]


def around(t, before=(), after=()):
    single = " ".join([*before, "$A", *after])
    return processors.TemplateProcessing(single=single, pair=single + " $B:1", special_tokens=[(n, t.token_to_id(n)) for n in (*before, *after)])


def special(*names):
    return [AddedToken(n, special=True, normalized=False) for n in names]


def byte_level(lines, pattern, names, normalizer=None, size=900):
    t = Tokenizer(models.BPE())
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size, special_tokens=special(*names), initial_alphabet=alphabet, show_progress=False))
    return t


def llama3(lines):
    t = byte_level(lines, LLAMA3, ("<|begin_of_text|>", "<|eot_id|>"))
    t.post_processor = around(t, ["<|begin_of_text|>"])
    j = json.loads(t.to_str())
    j["model"]["ignore_merges"] = True
    j["model"]["merges"] = j["model"]["merges"][:-150]  # so that tokens are left that only ignore_merges finds
    return j


def qwen2(lines):
    t = byte_level(lines, LLAMA3.replace("{1,3}", ""), ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), normalizers.NFC())
    t.add_tokens([AddedToken("<think>", normalized=False), AddedToken("<|im_", normalized=True)])
    return json.loads(t.to_str())


def o200k(lines):
    return json.loads(byte_level(lines, O200K, ("<|endoftext|>",)).to_str())


def llama2(lines):
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=1100, special_tokens=special("<unk>", "<s>", "</s>") + BYTES, limit_alphabet=150, show_progress=False)
    t.train_from_iterator(lines, trainer)
    t.post_processor = around(t, ["<s>"])
    j = json.loads(t.to_str())
    j["added_tokens"] = [a for a in j["added_tokens"] if a["content"] not in BYTES]
    return j


def gemma(lines):
    j = llama2(lines)
    j["normalizer"] = json.loads('{"type":"Replace","pattern":{"String":" "},"content":"▁"}')
    j["pre_tokenizer"] = json.loads('{"type":"Split","pattern":{"String":" "},"behavior":"MergedWithPrevious","invert":false}')
    j["decoder"]["decoders"].pop()
    return j


def metaspace(lines):
    """No byte fallback: unknown characters, each by itself. Added tokens with every setting."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("merged_with_previous"), pre_tokenizers.Metaspace(prepend_scheme="first")])
    t.decoder = decoders.Metaspace(prepend_scheme="first")
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=700, special_tokens=special("<unk>", "<s>"), limit_alphabet=120, show_progress=False))
    t.add_tokens([AddedToken("<mask>", lstrip=True, special=True), AddedToken("[INST]", rstrip=True), AddedToken("heart", single_word=True, normalized=False),
                  AddedToken("###", lstrip=True, rstrip=True, normalized=True), AddedToken("<box>", single_word=True, normalized=True), AddedToken("  ", normalized=False)])
    return json.loads(t.to_str())


def charsmap(lines):
    return sp_fields(sp_train(lines, model_type="unigram", vocab_size=700, normalization_rule_name="nmt_nfkc"))


def unigram(lines):
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap(lines)), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    t.decoder = decoders.Metaspace()
    names = ("<s>", "<pad>", "</s>", "<unk>")
    t.train_from_iterator(lines, trainers.UnigramTrainer(vocab_size=900, unk_token="<unk>", special_tokens=special(*names), show_progress=False))
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=True)])
    t.post_processor = around(t, ["<s>"], ["</s>"])
    return json.loads(t.to_str())


def unigram_bytes(lines):
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    t.train_from_iterator(lines, trainers.UnigramTrainer(vocab_size=700, unk_token="<unk>", special_tokens=special("<unk>", "</s>"), show_progress=False))
    j = json.loads(t.to_str())
    j["model"]["byte_fallback"] = True
    j["model"]["vocab"] += [[b, -20.0] for b in BYTES]
    j["decoder"] = json.loads('{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},'
                              '{"type":"Strip","content":" ","start":1,"stop":0}]}')
    return j


def wordpiece(lines):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    t.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special(*names), show_progress=False))
    t.post_processor = around(t, ["[CLS]"], ["[SEP]"])
    return json.loads(t.to_str())


def wordpiece_cased(lines):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    t.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.BertNormalizer(lowercase=False, strip_accents=True, handle_chinese_chars=False)])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Punctuation("contiguous")])
    t.decoder = decoders.WordPiece(cleanup=False)
    t.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=1200, special_tokens=special("[UNK]"), show_progress=False))
    return json.loads(t.to_str())


def sp_train(lines, **more):
    model = io.BytesIO()
    sp.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, minloglevel=2, max_sentence_length=8192, num_threads=1, hard_vocab_limit=False, **more)
    return model.getvalue()


def sp_fields(model):
    """The precompiled_charsmap of a tokenizer.model."""
    def fields(b):
        i = 0
        def varint():
            nonlocal i
            n = shift = 0
            while True:
                n |= (b[i] & 127) << shift
                shift, i = shift + 7, i + 1
                if b[i - 1] < 128:
                    return n
        while i < len(b):
            key = varint()
            if key & 7 == 2:
                n = varint()
                yield key >> 3, b[i : i + n]
                i += n
            elif key & 7 == 5:
                i += 4
            else:
                varint()
    spec = dict(fields(model))[3]
    return dict(fields(spec))[2]


def sp_bpe(lines):
    return sp_train(lines, model_type="bpe", vocab_size=1200, byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
                    character_coverage=0.98, user_defined_symbols=["<image>", "▁▁", "[INST]"], allow_whitespace_only_pieces=True)


def sp_unigram(lines):
    return sp_train(lines, model_type="unigram", vocab_size=1000, normalization_rule_name="nmt_nfkc", character_coverage=0.98, user_defined_symbols=["<extra_id_0>", "###", "ok"])


def tiktoken(lines):
    j = json.loads(byte_level(lines, oracle.QWEN, ("<|endoftext|>",), size=800).to_str())
    letters = {}
    n = 256
    for b in range(256):
        if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE:
            letters[chr(b)] = b
        else:
            letters[chr(n)] = b
            n += 1
    tokens = [bytes([b]) for b in range(256)] + [bytes(letters[c] for c in a + b) for a, b in j["model"]["merges"]]
    return "".join(f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate(dict.fromkeys(tokens))).encode()


VOCABULARIES = {
    "llama3.json": llama3, "qwen2.json": qwen2, "o200k.json": o200k, "llama2.json": llama2, "gemma.json": gemma, "metaspace.json": metaspace,
    "unigram.json": unigram, "unigram_bytes.json": unigram_bytes, "wordpiece.json": wordpiece, "wordpiece_cased.json": wordpiece_cased,
    "bpe.model": sp_bpe, "unigram.model": sp_unigram, "small.tiktoken": tiktoken,
}


def digest(answer):
    """Three bytes of what the oracle says: ids in decimal, - where it says nothing of templates, and the text, ? where it has U+FFFD."""
    ids = lambda list: "-" if list is None else ",".join(map(str, list))
    text = "?" if "\ufffd" in answer["text"] else answer["text"]
    return hashlib.sha256(f"{ids(answer['plain'])};{ids(answer['template'])};{text}".encode()).digest()[:3]


PATTERNS = [
    oracle.QWEN, LLAMA3, O200K, r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s*[\r\n]|\s+(?!\S)|\s",
    r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"a|ab", r"ab|a", r"a+?b?", r"a*b", r"(?:ab)+", r"(a|b)+c", r"(?>a+)b", r"a++b", r"a?+a", r"a{2}", r"a{2,}", r"a{,2}b", r"a{1,3}?", r"a{1,2}+b", r"(?:a|ab)(?:c|bcd)(?!d)",
    r"[^a-c]+", r"[a\-c]+", r"[\p{L}--]", r"[-a]+", r"[a-]+", r"\p{^L}+", r"\P{L}+", r"[^\S\n]+", r"[^\W\d]+", r"\d+", r"\w+", r"\W+", r".+", r"\Aa", r"a\z", r"(?i:straSe)", r"(?i:[k-s]+)", r"(?i:\u00e9)",
    r"\x41|\x{1F9FF}", r"(?=a)\p{L}{2}", r"(?!a)\p{L}{2}", r"(?:(?=a)a|b(?!b))+", r"\p{Han}+", r" {2,}", r"(?:[\u3040-\u30ff]|\p{Lm})+", r"\t|\f|\v", r"\s+$"[:-1] + "x", r"\.\*",
]
TEXTS = ["", "aaa", "aab abb abc", "abcbcd abcd", "a.*b", "DON'T 'S 'll'Re 'ſ it's", "12345678 1,234", "  x\n\n  y \t z\r\n ", "Straſe STRASE strase K\u212a sS", "肺は清明。ー ｶﾅ々", "e\u0301 é É 🧿A", "aaaaab",
         "HELLOworld HelloWORLD's ǅx ʰ", "a-c-b", "x    \u2003 x", "$ab#cd ~!@ 5%", "\u1c89\U00010d40 x\u0897", "bbba babab"]


def regex_golden():
    out = []
    for pattern in PATTERNS:
        try:
            split = pre_tokenizers.Split(Regex(pattern), "isolated")
            cut = [[x for x, _ in split.pre_tokenize_str(t)] for t in TEXTS]
        except Exception:
            cut = None  # no expression for Oniguruma
        out.append({"pattern": pattern, "cut": cut})
    (HERE / "regex.json").write_text(json.dumps({"texts": TEXTS, "patterns": out}, separators=(",", ":")) + "\n")


def ordinary(lines):
    """Lines to train on: those of characters that several lines have. The others are there to be unknown."""
    often = collections.Counter(c for x in lines for c in set(x))
    return [x for x in lines[:5000] if x.strip() and "\0" not in x and min(often[c] for c in x) >= 60]


def main():
    regex_golden()
    raw = [base64.b64decode(x) for x in open(sys.argv[1])]
    lines = ["".join(oracle.decode(x)) for x in raw]
    for name, train in VOCABULARIES.items() if "--train" in sys.argv else ():
        made = train(ordinary(lines))
        if not isinstance(made, bytes):
            made = json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode()
        (HERE / (name + ".gz")).write_bytes(gzip.compress(made, mtime=0))
    files = {"bundle": (pathlib.Path(sys.argv[2]).read_bytes(), "json"), "bytelevel.json": ((HERE / "bytelevel.json").read_bytes(), "json")}
    for name in VOCABULARIES:
        kind = {"model": "sentencepiece", "tiktoken": "qwen"}.get(name.split(".")[1], "json")
        files[name] = gzip.decompress((HERE / (name + ".gz")).read_bytes()), kind
    for name, (content, kind) in files.items():
        with tempfile.NamedTemporaryFile() as f:
            f.write(content)
            f.flush()
            ask = {"json": oracle.hugging_face, "sentencepiece": oracle.sentencepiece, "qwen": oracle.qwen}[kind](f.name)
        (HERE / (name + ".golden")).write_bytes(b"".join(digest(ask(x)) for x in lines))
        print(name)


if __name__ == "__main__":
    main()
