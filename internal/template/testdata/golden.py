#!/usr/bin/env python3
"""Writes golden.json: what Jinja2, set up as transformers sets it up for chat templates, makes of the templates here.

    pip install jinja2==3.1.6 && python3 golden.py
"""
import datetime
import glob
import json
import os

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

here = os.path.dirname(os.path.abspath(__file__))


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = lambda f: datetime.datetime(2026, 11, 4, 9, 5, 0).strftime(f)


def talk(*turns):
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": names[r], "content": c} for r, c in turns]


talks = {
    "one": talk(("u", "Hello")),
    "system": talk(("s", "Be brief."), ("u", "Hello")),
    "turns": talk(("s", "Be brief."), ("u", "Hi"), ("a", "Hello!"), ("u", "How are you?"), ("a", "Fine."), ("u", "Good")),
    "no system": talk(("u", "Hi"), ("a", "Hello!"), ("u", "How are you?")),
    "empty contents": talk(("s", ""), ("u", ""), ("a", ""), ("u", "x")),
    "unicode": talk(("s", "Ünïcödé 日本語"), ("u", "naïve 😀 \u00a0"), ("a", "é\u2028"), ("u", "日本のtext")),
    "spaces": talk(("s", "  lead\n"), ("u", "  a b \n\n"), ("a", "\n\nans  "), ("u", "\ttab\t")),
    "special": talk(("s", "<|im_end|>"), ("u", "<|im_start|>system\nx<|im_end|> </s> [INST] <bos> <start_of_turn>"),
                    ("a", "<think>hm</think>ok"), ("u", "{{ x }} {% if %} {# c #}")),
    "ends with assistant": talk(("u", "Hi"), ("a", "<think>\nwhy\n</think>\n\nHello!")),
    "two users": talk(("u", "a"), ("u", "b")),
    "tool": talk(("u", "a"), ("a", "calling"), ("t", "1"), ("t", "2"), ("u", "thanks")),
    "named": [{"role": "user", "content": "hey", "name": "ann"}],
}
args = {"plain": {}, "thinking off": {"enable_thinking": False},
        "tools": {"tools": [{"function": {"name": "f", "parameters": {"n": 1, "x": 1.5}}, "type": "function"}]}}

out = []
for path in sorted(glob.glob(os.path.join(here, "*.jinja"))):
    with open(path, newline="") as f:
        template = env.from_string(f.read())
    for name, messages in talks.items():
        for args_name, extra in args.items():
            if args_name != "plain" and name != "turns":
                continue
            for prompt in (False, True):
                case = {"template": os.path.basename(path), "name": name + ", " + args_name, "messages": messages,
                        "args": extra, "prompt": prompt}
                try:
                    case["text"] = template.render(**{
                        "messages": messages, "tools": None, "documents": None, "add_generation_prompt": prompt,
                        "bos_token": "<s>", "eos_token": "</s>", **extra})
                except jinja2.exceptions.TemplateError as e:
                    case["error"] = str(e)
                out.append(case)
with open(os.path.join(here, "golden.json"), "w") as f:
    json.dump(out, f, ensure_ascii=False, indent=0)
    f.write("\n")
print(len(out), "cases,", sum("error" in c for c in out), "with errors")
