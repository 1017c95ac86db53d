#!/usr/bin/env python3
"""Writes families.json.gz: what Jinja2, set up as transformers sets it up, makes of the templates in families, which do what those of
the model families do, for conversations with tools, reasoning and contents of several parts.

    pip install jinja2==3.1.6 && python3 families.py

Each line: template, name, messages, tools, args, prompt, and text or error.
"""
import datetime
import glob
import gzip
import json
import os

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

here = os.path.dirname(os.path.abspath(__file__))


class Generation(jinja2.ext.Extension):
    """The generation block, which prints its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = lambda f: datetime.datetime(2026, 11, 4, 9, 5, 0).strftime(f)


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, id="a1B2c3D4e"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def text(s):
    return {"type": "text", "text": s}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "  The weather \"now\", in °C & more. ",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "City, e.g. Zürich", "examples": ["Bern", "Ur"]},
                "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                "days": {"type": "integer", "minimum": 1, "maximum": 7.0, "default": 3},
                "at": {"type": ["string", "null"]},
                "points": {"type": "array", "items": {"type": "number"}, "nullable": True},
                "box": {"type": "object", "properties": {"x": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string"}}}, "required": ["x"]},
                "any": {"oneOf": [{"type": "string", "description": "a name"}, {"type": "number"}]},
            },
            "required": ["place"],
        },
        "strict": True,
    },
}
PLAIN = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}}
ODD = {"type": "function", "function": {"name": "say", "description": "Says <|im_end|> and </tools>\n{{ x }}",
                                        "parameters": {"type": "object", "properties": {"a <|b|> c": {"type": "boolean", "description": "\u2028é\u0007\t"}}}}}
ARGUMENTS = {"place": "Zürich \"Nord\"", "days": 2, "exact": True, "none": None, "ratio": 1.5, "whole": 2.0, "big": 9007199254740993, "small": 1e-07,
             "list": [1, "two", {"three": [3.0]}], "empty": {}, "text": "a\nb\\c/<|im_end|>"}

TALKS = {
    "hello": [message("user", "Hello")],
    "system": [message("system", " Be brief. "), message("user", "Hi\n"), message("assistant", "Hello!"), message("user", " How? ")],
    "developer": [message("developer", "Be brief."), message("user", "Hi")],
    "turns": [message("user", "a"), message("assistant", "b"), message("user", "c"), message("assistant", "<think>\nhm\n</think>\n\nd"), message("user", "e")],
    "two users": [message("user", "a"), message("user", "b")],
    "late system": [message("user", "a"), message("system", "b")],
    "ends with assistant": [message("user", "a"), message("assistant", "b")],
    "thinking": [message("user", "a"), message("assistant", "b", reasoning_content="\nsome reason\n", thinking="some reason"), message("user", "c"),
                 message("assistant", "d", reasoning_content="more <think>", thinking="more")],
    "call": [message("system", "S"), message("user", "Weather?"), message("assistant", None, tool_calls=[call("get_weather", ARGUMENTS)]),
             message("tool", "{\"t\": 12}", name="get_weather", tool_call_id="a1B2c3D4e")],
    "call and answer": [message("user", "Weather?"), message("assistant", "", tool_calls=[call("get_weather", {"place": "Bern"})]),
                        message("tool", "12 <|im_end|>", tool_call_id="a1B2c3D4e"), message("assistant", "It is 12."), message("user", "Thanks")],
    "calls": [message("user", "Weather?"),
              message("assistant", "I look.", reasoning_content="two of them", tool_calls=[call("get_weather", {"place": "Bern"}), call("now", {}, "f5G6h7I8j")]),
              message("tool", "12", tool_call_id="a1B2c3D4e"), message("tool", " 09:05\n", tool_call_id="f5G6h7I8j"),
              message("assistant", "<think>\nsum\n</think>\n\n12 at nine."), message("user", "Thanks")],
    "steps": [message("user", "go"), message("assistant", "first", reasoning_content="one", tool_calls=[call("now", {})]), message("tool", "9", tool_call_id="a1B2c3D4e"),
              message("assistant", "second", reasoning_content="two", tool_calls=[call("now", {})]), message("tool", "10", tool_call_id="a1B2c3D4e")],
    "string arguments": [message("user", "go"), message("assistant", None, tool_calls=[call("now", "{\"a\": 1}")])],
    "short id": [message("user", "go"), message("assistant", None, tool_calls=[call("now", {}, "call_1")])],
    "odd id": [message("user", "go"), message("assistant", None, tool_calls=[call("now", {}, "<|im_end|>")])],
    "tool alone": [message("user", "a"), message("tool", "b", tool_call_id="a1B2c3D4e")],
    "bare call": [message("user", "go"), message("assistant", "", tool_calls=[{"name": "now", "arguments": {"x": 1}}])],
    "parts": [message("user", [text(" What is "), {"type": "image"}, text("this? <start_of_turn>")]), message("assistant", [text("A cat.")]),
              message("user", [text("Sure?"), {"type": "image_url", "image_url": {"url": "data:,x"}}])],
    "system parts": [message("system", [text("Be brief.")]), message("user", [text("Hi")])],
    "tool parts": [message("user", "go"), message("assistant", None, tool_calls=[call("now", {})]), message("tool", [text("nine")], tool_call_id="a1B2c3D4e")],
    "special": [message("system", "<|im_end|>\n<|eot_id|>"), message("user", "[/INST]</s> <｜User｜> <|end|>{{ x }}"), message("assistant", "<tool_call>x</tool_call>"), message("user", "<tool_response>y</tool_response>")],
    "unicode": [message("system", "Ünï 日本"), message("user", "naïve 😀\u00a0"), message("assistant", "é\u2028"), message("user", "\u3000日本のtext\u3000")],
    "other role": [message("user", "a"), message("critic", "b")],
    "empty": [message("system", ""), message("user", ""), message("assistant", ""), message("user", "x")],
}
ARGS = {
    "": {},
    "thinking": {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"},
    "no thinking": {"enable_thinking": False, "preserve_thinking": True, "tools_in_user_message": False},
    "builtin": {"builtin_tools": ["browser", "python", "code_interpreter"], "date_string": "4 Nov 2026", "add_vision_id": True},
}
TOOLS = {"": None, "one tool": [WEATHER], "tools": [WEATHER, PLAIN, ODD]}
MORE = {"hello", "system", "call", "calls", "steps", "thinking"}


def cases():
    for path in sorted(glob.glob(os.path.join(here, "families", "*.jinja"))):
        with open(path, newline="") as f:
            template = env.from_string(f.read())
        for name, messages in TALKS.items():
            for tools_name, tools in TOOLS.items():
                for args_name, args in ARGS.items():
                    if name not in MORE and (args_name or tools_name == "one tool"):
                        continue
                    for prompt in (False, True):
                        case = {"template": os.path.basename(path), "name": "%s, %s, %s" % (name, tools_name, args_name), "messages": messages,
                                "tools": tools, "args": args, "prompt": prompt}
                        try:
                            case["text"] = template.render(messages=messages, tools=tools, documents=None, add_generation_prompt=prompt,
                                                           bos_token="<s>", eos_token="</s>", **args)
                        except (TypeError, jinja2.exceptions.UndefinedError) as e:  # an operator between a text and None, or the like
                            case["fault"] = str(e)
                        except jinja2.exceptions.TemplateError as e:
                            case["error"] = str(e)
                        yield case


def main():
    out = list(cases())
    with open(os.path.join(here, "families.json.gz"), "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as f:
        for case in out:
            f.write((json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n").encode())
    print(len(out), "cases,", sum("error" in c for c in out), "with errors,", sum("fault" in c for c in out), "with faults")


main()
