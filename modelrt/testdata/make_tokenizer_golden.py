#!/usr/bin/env python3
"""Writes the golden data of modelrt's tokenizer with Hugging Face tokenizers 0.22 as the oracle.

usage: make_tokenizer_golden.py TOKENIZER.json
TOKENIZER.json is the default bundle's. Beside this script are written
  tokenizer_small.json       a small vocabulary trained on the lines below, with two added tokens that are not special
  tokenizer_golden.jsonl.gz  first the digests of the character classes, then one line a text: t (base64), small, real, template ids
Every line of text is made up here.
"""
import base64
import gzip
import hashlib
import itertools
import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
RND = random.Random(20)

NOUNS = "effusion consolidation nodule heart mediastinum catheter pneumothorax atelectasis hilum rib diaphragm apex".split()
SIDES = "left right bilateral".split()
WORLD = [
    "Größe des Herzens: übermäßig, à gauche; ça va? señor Ångström", "łódź żółć – Příliš žluťoučký kůň", "Ünïcödé ﬁne ﬂow Ǆ ǅ ʰ ƻ ª º",
    "Το πνευμονικό πεδίο είναι καθαρό", "Сердце не увеличено. Лёгкие чистые.", "لا يوجد انصباب جنبي", "הלב אינו מוגדל", "फेफड़े साफ हैं।",
    "ปอดปกติ ไม่มีน้ำ", "심장 크기는 정상입니다", "心臓の大きさは正常です。肺野は清明。", "双肺清晰，心影不大。", "ཕོ་བྲང་", "გული ნორმალურია", "ሳንባ ንጹህ ነው",
    "🫁🫀 ok 👩🏽‍⚕️ 🇨🇭🇯🇵 ☢️ ✅❌ 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "½ ⅓ ² ³ ① ⑳ Ⅷ ↀ ৩ ٣ ४२ 〇 一二三 𝟙𝟚 ㊿ 𐄇", "e\u0301 é n\u0303 ñ Å Å ﷺ", "\u00a0nbsp\u2003em\u3000wide\u202fthin\u205fmath\u1680ogham",
    "zero\u200bwidth\u200djoin\ufeffbom\u2060wj\u00adshy", "\u0085nel\u2028ls\u2029ps\x0bvt\x0cff\x1cfs\x1dgs\x1ers\x1fus", "\x00\x01\x02\x7f\x80\x9f",
    "\u1c89\u1c8a \ua7cb \U000105c0x \U00010d40\U00010d41 \U00011de0a \U00016ff4 \U0002ebf0", "\U000e0001\U0010fffd\ue000\ufdd0\uffff",
    "«quotes» „low“ ‘single’ ‹angle› …—–‐", "µg/mL ≥5 mm ± 2 × 10⁶ °C ∑∫√∞ ≠≈ €£¥₿", "a\u0300\u0301\u0302\u0303b", "ⅷX ⒜ ㏒ ㍿",
]
ODD = [
    "", " ", "  ", "\n", "\n\n\n", "\t\t x", " \n \n ", "a  b   c    d", "   lead", "trail   ", "x \n", "\r\n\r\n", "5", " 5", "  5", "5 ", "5  ", "5\n 6", "a5b55c555",
    "1,234,567.89e-10", "12 cm x 3.5 cm", "v1.2.3-rc4", "T12/L1", "0xFF 1_000", "...5", "--5--", "  ...  ", "don't I'll we've she'd I'm they're it's", "DON'T 'S 'sx 's's 're're ''s '' ' s",
    "rock'n'roll 'tis o'clock's", "'", "''''", "a'", "'a", " 'd", "it’s", "{\"a\": [1, 2.5, null]}\n\tif (x) { return y; }", "http://example.org/a?b=c&d=%20e#f", "C:\\dir\\file.txt", "____ ---- ==== ####",
    "!!!???", "a!b@c#d$e%f^g&h*i(j)k", "camelCaseAndPascalCase SHOUTING_SNAKE", "Ġ Ċ ċ Ń Ā ÿ", "<|im_start|>", "a<|im_end|>b", "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|><|endoftext|>", "<|nope|> <|im_start <|im_start|", "<<|im_end|>>", "<box>", "a<box>b <box> <box", "<|im_<|im_end|>", "x" * 300, "ab" * 200, " " * 70 + "x", "é" * 90, "9" * 60, "aA" * 50 + "!" * 80,
]
BROKEN = [b"\xff", b"ok \xc3", b"\xe2\x82", b"\xe2\x82\xac\xe2\x82", b"a\x80b\xbfc", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"x \xfe\xff 5\xc3\x28", b"\xc3\xa9\xc3"]


def sentences():
    for n, s in itertools.product(NOUNS, SIDES):
        yield f"There is {RND.choice(['no', 'a small', 'a large', 'possible'])} {s} {n}; measured {RND.randint(1, 99)}.{RND.randint(0, 9)} mm, {RND.choice(['unchanged', 'new', 'resolved'])}."
        yield f"{s.capitalize()} {n}: doesn't look {RND.choice(['enlarged', 'displaced', 'blunted'])} (see image {RND.randint(1, 300)}/{RND.randint(2000, 2030)})."


def any_character():
    while True:
        c = RND.choice([RND.randint(0, 0x7F), RND.randint(0, 0x7FF), RND.randint(0, 0xFFFF), RND.randint(0x10000, 0x1FFFF), RND.randint(0, 0x10FFFF), RND.choice(b" \n's5aA")])
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def classes():
    """L, N, O(ther), S(pace) of each code point in the expression, and N where the digit rule cuts; surrogates are -."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    expression, digit = [], []
    for n in range(0x110000):
        if 0xD800 <= n < 0xE000:
            expression.append("-"), digit.append("-")
            continue
        c = chr(n)
        kind = next((k for k, x in (("L", "a"), ("N", "5"), ("O", "!")) if len(level.pre_tokenize_str(x + c + x)) == 1), "S")
        expression.append(kind)
        digit.append("N" if len(digits.pre_tokenize_str("a" + c + "a")) == 3 else ".")
    return [hashlib.sha256("".join(x).encode()).hexdigest() for x in (expression, digit)]


def train(lines):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    special = [AddedToken(s, special=True, normalized=False) for s in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False))
    t.add_tokens([AddedToken("<box>", normalized=True), AddedToken("<|im_", normalized=True)])
    return t


def main():
    real = Tokenizer.from_file(sys.argv[1])
    plain = list(sentences())
    small = train(plain + WORLD[:4])
    small.save(str(HERE / "tokenizer_small.json"), pretty=False)
    texts = [x.encode() for x in plain + WORLD + ODD] + BROKEN
    texts += [f"{a} {b}".encode() for a, b in itertools.pairwise(WORLD)]
    texts += ["".join(any_character() for _ in range(24)).encode() for _ in range(150)]
    expression, digit = classes()
    with gzip.GzipFile(HERE / "tokenizer_golden.jsonl.gz", "wb", mtime=0) as out:
        def write(o):
            out.write((json.dumps(o, separators=(",", ":")) + "\n").encode())
        write({"expression": expression, "digits": digit})
        for raw in texts:
            t = "".join(decode(raw))
            row = {"t": base64.b64encode(raw).decode()}
            for name, tok in (("small", small), ("real", real)):
                row[name + "_template"] = tok.encode(t, add_special_tokens=False).ids
                row[name] = untrusted(tok, t)
            write(row)
    print(len(texts), "texts")


def decode(raw):
    """UTF-8, with one U+FFFD for each byte that belongs to no sequence."""
    while raw:
        try:
            yield raw.decode()
            return
        except UnicodeDecodeError as e:
            yield raw[: e.start].decode() + "\ufffd" * (e.end - e.start)
            raw = raw[e.end :]


def untrusted(tok, text):
    """Ids with no added token recognised: the same model without any."""
    bare = Tokenizer(tok.model)
    bare.pre_tokenizer = tok.pre_tokenizer
    return bare.encode(text, add_special_tokens=False).ids


if __name__ == "__main__":
    main()
