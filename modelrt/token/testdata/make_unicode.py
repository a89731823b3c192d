#!/usr/bin/env python3
"""Writes unicode_tables.go and testdata/unicode.json: what Hugging Face tokenizers 0.22 thinks of each code point, told as differences
from Unicode 15.0, which Go 1.26 knows, and as digests for the test.

needs: tokenizers==0.22.2 unicodedata2==15.0.0
"""
import hashlib
import json
import pathlib

import unicodedata2 as ucd
from tokenizers import Regex, normalizers, pre_tokenizers

HERE = pathlib.Path(__file__).parent
assert ucd.unidata_version == "15.0.0"
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORY = {c: ucd.category(chr(c)) for c in POINTS}
# Other_Alphabetic, Join_Control and scripts are not in unicodedata2. \w is compared with the categories alone, and the constant
# part of the difference is what Go's Other_Alphabetic holds; the test in Go sees the sum.


def matches(pattern):
    """The characters that an expression of one character matches in Oniguruma."""
    cut = normalizers.Replace(Regex(pattern), "")
    hit = set()
    for i in range(0, len(POINTS), 5000):
        chunk = POINTS[i : i + 5000]
        hit |= set(chunk) - set(map(ord, cut.normalize_str("".join(map(chr, chunk)))))
    return hit


def where(test):
    return {c for c in POINTS if test(chr(c))}


def pieces(p, around, n):
    return where(lambda c: len(p.pre_tokenize_str(around + c + around)) == n)


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def table(points):
    r = ranges(points)
    lines = ["&unicode.RangeTable{"]
    for name, part in (("R16", [x for x in r if x[1] <= 0xFFFF]), ("R32", [x for x in r if x[0] > 0xFFFF])):
        if part:
            lines.append(f"\t{name}: []unicode.Range{name[1:]}{{")
            lines += [f"\t\t{{Lo: {a:#x}, Hi: {b:#x}, Stride: 1}}," for a, b in part]
            lines.append("\t},")
    return "\n".join(lines + ["}"])


def digest(points):
    return hashlib.sha256("".join(f"{a:x}-{b:x};" for a, b in ranges(points)).encode()).hexdigest()


def late_characters():
    """Characters that are inert for the oracle's normalisation, whose Unicode is older, and not for Unicode 15."""
    nfd, nfkd = normalizers.NFD().normalize_str, normalizers.NFKD().normalize_str
    for c in POINTS:
        s, k = chr(c), ucd.combining(chr(c))
        if k and k < 230 and nfd("a\u0301" + s) == "a\u0301" + s or k >= 230 and nfd("a" + s + "\u0316") == "a" + s + "\u0316":
            yield c
        elif ucd.decomposition(s) and nfkd(s) == s:
            yield c
            if not ucd.decomposition(s).startswith("<"):
                yield from (int(x, 16) for x in ucd.decomposition(s).split())


def main():
    oracle, base = {}, {}
    for name in "L N M P S Z Lu Ll Lt Lm Lo Nd Nl No Mn Mc Me Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split():
        oracle["onig " + name] = matches(rf"\p{{{name}}}")
        base["onig " + name] = {c for c, k in CATEGORY.items() if k.startswith(name)}
    oracle["onig Han"] = matches(r"\p{Han}")
    oracle["onig word"] = matches(r"\w")
    oracle["onig space"] = matches(r"\s")
    oracle["rust numeric"] = pieces(pre_tokenizers.Digits(individual_digits=True), "a", 3)
    oracle["rust word"] = pieces(pre_tokenizers.Whitespace(), "a", 1)
    oracle["rust space"] = pieces(pre_tokenizers.WhitespaceSplit(), "a", 2)
    oracle["rust punctuation"] = pieces(pre_tokenizers.Punctuation("isolated"), "a", 3)
    clean = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False).normalize_str
    oracle["rust control"] = where(lambda c: clean(c) == "") - {0xFFFD}
    chinese = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False).normalize_str
    oracle["chinese"] = where(lambda c: chinese(c) != c)
    oracle["rust mark"] = where(lambda c: normalizers.StripAccents().normalize_str(c) == "")
    accents = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False).normalize_str
    nfd = normalizers.NFD().normalize_str
    whole = where(lambda c: nfd(c) == c)
    oracle["rust nonspacing"] = {c for c in whole if accents(chr(c)) == ""}
    by = lambda *names: {c for c, k in CATEGORY.items() if k.startswith(names)}
    base["rust numeric"], base["rust mark"], base["rust nonspacing"] = by("N"), by("M"), by("Mn") & whole
    base["rust punctuation"] = by("P") | set(map(ord, "$+<=>^`|~"))
    base["rust control"] = by("Cc", "Cf", "Co") - {9, 10, 13}
    # A character whose category Unicode 15 does not know cannot be in Go's Other_Alphabetic; the others agree.
    for name in ("onig word", "rust word", "onig Han"):
        base[name] = oracle[name] - {c for c in oracle[name] if CATEGORY[c] == "Cn"}
    base["onig word"] -= set(map(ord, "²³¹¼½¾"))  # of all numbers that are no digits only these count, those of Latin-1

    out = ["package token", "", "// Code generated by testdata/make_unicode.py; DO NOT EDIT.", "", 'import "unicode"', ""]
    for kind, go in (("onig", "oniguruma"), ("rust", "rust")):
        for side in ("More", "Less"):
            out.append(f"var {go}{side} = map[string]*unicode.RangeTable{{")
            for key in sorted(base):
                if key.startswith(kind):
                    diff = oracle[key] - base[key] if side == "More" else base[key] - oracle[key]
                    if diff:
                        out.append(f'"{key.split()[1]}": {table(diff)},')
            out += ["}", ""]
    low = normalizers.Lowercase().normalize_str
    odd = {c: low(chr(c)) for c in POINTS if CATEGORY[c] == "Cn" and low(chr(c)) != chr(c)}
    out.append("// rustLower are letters whose small form Unicode 15 does not know.")
    out.append("var rustLower = map[rune]rune{")
    out += [f"{c:#x}: {ord(x):#x}," for c, x in sorted(odd.items())]
    out += ["}", "", "// late are characters that the oracle's normalisation, whose Unicode is older, leaves as they are.", f"var late = {table(set(late_characters()))}", ""]
    (HERE.parent / "unicode_tables.go").write_text("\n".join(out))
    digests = {k: digest(v) for k, v in oracle.items()}
    digests["lower"] = hashlib.sha256("".join(f"{c:x}:{low(chr(c))};" for c in POINTS if low(chr(c)) != chr(c)).encode()).hexdigest()
    for name in ("NFC", "NFD", "NFKC", "NFKD"):
        f = getattr(normalizers, name)().normalize_str
        digests[name] = hashlib.sha256("".join(f"{c:x}:{f(chr(c))};" for c in POINTS if f(chr(c)) != chr(c)).encode()).hexdigest()
    (HERE / "unicode.json").write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
