#!/usr/bin/env python3
"""What jinja2 makes of chat templates, in the environment that transformers' apply_chat_template gives them.

usage: oracle.py < CASES
Each line of CASES is JSON: template, messages, add_generation_prompt, bos, eos, extra. For each of them a line of JSON is written:
{"text": ..} or {"error": ..}.

needs: jinja2==3.1.6
"""
import datetime
import json
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2026, 3, 7, 9, 5, 2)


class Generation(jinja2.ext.Extension):
    """{% generation %} marks the assistant's words; rendering takes no notice."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: NOW.strftime(form)
    return env


def main():
    env = environment()
    for line in sys.stdin:
        c = json.loads(line)
        try:
            text = env.from_string(c["template"]).render(
                messages=c["messages"], add_generation_prompt=c["add_generation_prompt"], bos_token=c["bos"], eos_token=c["eos"], **c["extra"]
            )
            print(json.dumps({"text": text}))
        except Exception as e:
            print(json.dumps({"error": f"{type(e).__name__}: {e}"}))


if __name__ == "__main__":
    main()
