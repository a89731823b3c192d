"""Asks a running service through PyPI's openai. A line of JSON for each operation.

    chat.py ROOT TOKEN STUDY    ROOT is the service's /v1; the study is stored
"""

import base64
import json
import struct
import sys
import zlib

import openai

root, token, study = sys.argv[1:]
client = openai.OpenAI(base_url=root, api_key=token, max_retries=0, timeout=120)
model = client.models.list().data[0].id
reference = {"type": "image_url", "image_url": {"url": f"dicom:{study}"}}
instruction = "Write a report of this chest radiograph."
operations = []


def operation(name):
    return lambda f: operations.append((name, f))


def same(got, want):
    assert got == want, f"got {str(got)[:600]}, want {str(want)[:600]}"


def user(text, image=reference):
    return {"role": "user", "content": [image, {"type": "text", "text": text}]}


def ask(*messages, **more):
    return client.chat.completions.create(model=model, messages=list(messages), **more)


def picture(width, height):
    """A PNG file of a gray ramp."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x + y) % 256 for x in range(width)) for y in range(height))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(png).decode()}}


def refused(kind, f):
    try:
        f()
    except kind as e:
        return e
    raise AssertionError(f"not refused with {kind.__name__}")


@operation("models")
def _():
    one = client.models.retrieve(model)
    same(one.id, model)
    assert "poorly" in one.chatxray["notice"] and one.chatxray["intended_use"], one
    refused(openai.NotFoundError, lambda: client.models.retrieve("gpt-4o"))


@operation("answer about a reference")
def _():
    raw = client.chat.completions.with_raw_response.create(model=model, messages=[user(instruction)])
    a = raw.parse()
    same(a.choices[0].finish_reason, "stop")
    assert "heart" in a.choices[0].message.content.lower(), a
    assert a.usage.total_tokens == a.usage.prompt_tokens + a.usage.completion_tokens > 40, a.usage
    assert a.chatxray["draft"] is True and "draft" in raw.headers["warning"].lower()


@operation("answer about a picture")
def _():
    a = ask(user("Is the heart enlarged?", picture(256, 200)), max_tokens=12)
    assert a.choices[0].message.content and a.usage.completion_tokens <= 12, a


@operation("stream")
def _():
    whole = ask(user(instruction), temperature=0)
    text, usage, ends, roles = "", None, [], []
    for piece in ask(user(instruction), temperature=0, stream=True, stream_options={"include_usage": True}):
        usage = piece.usage or usage
        for c in piece.choices:
            text += c.delta.content or ""
            roles += [c.delta.role] if c.delta.role else []
            ends += [c.finish_reason] if c.finish_reason else []
    same(text, whole.choices[0].message.content)
    same((ends, roles), (["stop"], ["assistant"]))
    same(usage.completion_tokens, whole.usage.completion_tokens)
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1, usage  # asked just now


@operation("second turn")
def _():
    first = user("What is the size of the heart?")
    one = ask(first, max_tokens=20)
    two = ask(first, one.choices[0].message.model_dump(), {"role": "user", "content": "And the lungs?"}, max_tokens=20)
    cached = two.usage.prompt_tokens_details.cached_tokens
    assert cached >= one.usage.prompt_tokens and two.usage.prompt_tokens - cached < 20, (one.usage, two.usage)


@operation("seeds")
def _():
    def drawn(seed):
        return ask(user("Describe the lungs."), temperature=1.5, seed=seed, max_tokens=16, extra_body={"top_k": 200, "repetition_penalty": 1.1}).choices[0].message.content

    same(drawn(7), drawn(7))
    assert len({drawn(s) for s in range(4)}) > 1
    a = ask(user("Describe the lungs."), temperature=1.5, max_tokens=8)
    same(ask(user("Describe the lungs."), temperature=1.5, max_tokens=8, seed=a.chatxray["seed"]).choices[0].message.content, a.choices[0].message.content)


@operation("stop strings")
def _():
    whole = ask(user(instruction)).choices[0].message.content
    for stop in ("\n", "Impression: Normal", whole[:1], whole[10:30], ["never there", whole[40:43]]):
        a = ask(user(instruction), stop=stop)
        first = stop if isinstance(stop, str) else stop[1]
        same(a.choices[0].message.content, whole.split(first)[0])
        same(a.choices[0].finish_reason, "stop")


@operation("logprobs")
def _():
    c = ask(user("Is there an effusion?"), logprobs=True, top_logprobs=3, max_tokens=5).choices[0]
    same(c.finish_reason, "length")
    same(bytes(b for t in c.logprobs.content for b in t.bytes).decode(), c.message.content)
    for t in c.logprobs.content:
        same(len(t.top_logprobs), 3)
        assert t.logprob <= 0 and t.token == t.top_logprobs[0].token, t


@operation("structured output")
def _():
    schema = {"type": "object", "properties": {"effusion": {"enum": ["left", "right", "none"]}, "heart": {"enum": ["normal", "enlarged"]}}, "required": ["effusion", "heart"],
              "additionalProperties": False}
    for seed in range(3):
        a = ask(user("Effusion and heart?"), temperature=2, seed=seed, response_format={"type": "json_schema", "json_schema": {"name": "sides", "strict": True, "schema": schema}})
        v = json.loads(a.choices[0].message.content)
        assert set(v) == {"effusion", "heart"} and v["effusion"] in ("left", "right", "none") and v["heart"] in ("normal", "enlarged"), v
    e = refused(openai.BadRequestError, lambda: ask(user("x"), response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}))
    same(e.param, "response_format")


@operation("errors")
def _():
    same(refused(openai.NotFoundError, lambda: client.chat.completions.create(model="gpt-4o", messages=[user("x")])).code, "model_not_found")
    e = refused(openai.BadRequestError, lambda: ask({"role": "user", "content": "x"}))
    assert "exactly 1" in e.message and e.param == "messages" and e.type == "invalid_request_error", e
    e = refused(openai.BadRequestError, lambda: ask(user("word " * 600)))
    assert e.code == "context_length_exceeded" and "512" in e.message, e
    same(refused(openai.BadRequestError, lambda: ask(user("x"), max_tokens=500)).code, "context_length_exceeded")
    same(refused(openai.BadRequestError, lambda: ask({"role": "user", "content": [reference] * 50})).code, "too_many_images")
    assert "1×1" in refused(openai.BadRequestError, lambda: ask(user("x", picture(1, 1)))).message
    e = refused(openai.NotFoundError, lambda: ask(user("x", {"type": "image_url", "image_url": {"url": "dicom:1.2.3"}})))
    same(e.param, "messages[0].content[0].image_url.url")
    same(refused(openai.BadRequestError, lambda: ask(user("x"), extra_body={"frobnicate": 1})).param, "frobnicate")
    other = openai.OpenAI(base_url=root, api_key="nobody-0123456789", max_retries=0)
    same(refused(openai.AuthenticationError, lambda: other.models.list()).code, "invalid_api_key")


for name, f in operations:
    try:
        f()
        print(json.dumps({"operation": name}), flush=True)
    except Exception as e:  # told, and the next one is tried
        print(json.dumps({"operation": name, "error": f"{type(e).__name__}: {e}"}), flush=True)
