#!/usr/bin/env python3
"""Writes scripts.json.gz: what fontTools' tables of the Unicode Character Database say on every character's script.

Run with fontTools 4.68 (Unicode 18): python3 scripts.py
"spans" is the Script property, "extensions" is Script_Extensions where it says more than Script: both as [first, last, value].
"""
import gzip, json, pathlib
from fontTools import unicodedata as u

def spans(value):
    out = []
    for c in range(0x110000):
        v = None if 0xD800 <= c <= 0xDFFF else value(chr(c))
        if v is None:
            continue
        if out and out[-1][1] == c - 1 and out[-1][2] == v:
            out[-1][1] = c
        else:
            out.append([c, c, v])
    return out

def script(c):
    v = u.script(c)
    return None if v == "Zzzz" else v

def extension(c):
    v = u.script_extension(c)
    return None if v == {u.script(c)} else " ".join(sorted(v))

golden = {"spans": spans(script), "extensions": spans(extension)}
path = pathlib.Path(__file__).with_name("scripts.json.gz")
with path.open("wb") as f, gzip.GzipFile(fileobj=f, mode="wb", mtime=0, filename="") as z:
    z.write(json.dumps(golden, separators=(",", ":")).encode())
