#!/usr/bin/python3
"""Draws docs/report.png: what `chatxray report` prints about a phantom, beside what the model saw.

Usage: scripts/report_picture.py bin/chatxray docs/report.png
Needs python3-pil and a monospaced DejaVu font (Debian: fonts-dejavu-core). The report is taken from a pseudo-terminal, colours included.
"""
import glob
import os
import pty
import re
import subprocess
import sys
import tempfile

from PIL import Image, ImageDraw, ImageFont

FONTS = "/usr/share/fonts/truetype/dejavu/"
SIZE, LINE, MARGIN = 15, 20, 24
COLOURS = {"31": "#e06c75", "32": "#98c379", "33": "#e5c07b", "2": "#8a919e", "1": "#ffffff", "": "#d5d9e0"}


def printed(command):
    """What a command writes to a terminal."""
    out = bytearray()

    def read(fd):
        data = os.read(fd, 4096)
        out.extend(data)
        return data

    stdout = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    status = pty.spawn(["sh", "-c", 'exec "$@" 2>/dev/null', "sh", *command], read)
    os.dup2(stdout, 1)
    if status:
        raise SystemExit(f"{command} failed")
    return out.decode().replace("\r", "")


def spans(line, style):
    """(style, text) pairs of a line with ANSI colours; style is what the line before left."""
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b"):
            style = part[2:-1].lstrip("0")
            yield style, ""
        elif part:
            yield style, part


def main(binary, target):
    with tempfile.TemporaryDirectory() as folder:
        study = os.path.join(folder, "phantom.dcm")
        subprocess.run([binary, "phantom", "--seed", "7", "--effusion", "right", "--out", study], check=True)
        text = printed([binary, "--log-level", "error", "report", "--out", folder, study])
        seen = Image.open(glob.glob(os.path.join(folder, "*.png"))[0]).convert("RGB")
    lines = [l for l in text.strip("\n").split("\n") if folder not in l]
    font = ImageFont.truetype(FONTS + "DejaVuSansMono.ttf", SIZE)
    bold = ImageFont.truetype(FONTS + "DejaVuSansMono-Bold.ttf", SIZE)
    step = font.getlength("M")
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", l) for l in lines]
    width = int(max(map(len, plain)) * step)
    picture = Image.new("RGB", (MARGIN * 3 + seen.width + width, MARGIN * 2 + max(seen.height, LINE * (len(lines) + 2))), "#1e222a")
    picture.paste(seen, (MARGIN, MARGIN))
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN + seen.height + 8), "what the model saw", font=font, fill=COLOURS["2"])
    x0 = MARGIN * 2 + seen.width
    draw.text((x0, MARGIN), "$ chatxray report phantom.dcm", font=bold, fill=COLOURS["1"])
    style = ""
    for row, line in enumerate(lines):
        x = x0
        for style, part in spans(line, style):
            colour = COLOURS.get(style.split(";")[-1] if style else "", COLOURS[""])
            draw.text((x, MARGIN + LINE * (row + 2)), part, font=bold if style.startswith("1") else font, fill=colour)
            x += step * len(part)
    picture.save(target, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
