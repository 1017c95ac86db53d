#!/usr/bin/env python3
"""Holds a running server against reference values of its model.

usage: refcheck.py URL REFERENCE.json [MODEL]

The reference file has, for each case, a text with its token ids, the best tokens and log-probabilities after it, and the greedy continuation up to
the first step where the two best tokens are closer than MARGIN ("safe_text"): up to there every sound engine must agree. The values
come from the model's weights in float32. Only /v1/completions is used, with token-id prompts. Needs nothing but Python.
"""
import json, sys, urllib.request

MARGIN = 0.2      # log-probability between best and second-best token, below which engines may differ
GREEDY = 20 / 22  # cases whose whole safe text must come out
LOGPROB = 0.14    # mean difference of the best token's log-probability


def complete(url, **body):
    request = urllib.request.Request(url.rstrip("/") + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as r:
        return json.load(r)


def alternatives(choice):
    """Text to log-probability of the first token's alternatives, in OpenAI's form or llama.cpp's."""
    lp = choice["logprobs"]
    if "top_logprobs" in lp:
        return lp["top_logprobs"][0]
    return {x["token"]: x["logprob"] for x in lp["content"][0]["top_logprobs"]}


def check(url, reference, model="smol"):
    """Returns a line of figures and the list of what is wrong."""
    best_ok = best_n = greedy_ok = greedy_n = 0
    differences, wrong, unequal = [], [], []
    for i, c in enumerate(reference["cases"]):
        r = complete(url, model=model, prompt=c["ids"], max_tokens=max(1, c["safe_n"]), temperature=0, logprobs=5)
        if r["usage"]["prompt_tokens"] != len(c["ids"]):
            wrong.append(f"case {i}: {r['usage']['prompt_tokens']} prompt tokens of {len(c['ids'])} ids")
        tokens = complete(url, model=model, prompt=c["text"], max_tokens=1, temperature=0)["usage"]["prompt_tokens"]
        if tokens != len(c["ids"]):
            wrong.append(f"case {i}: the text makes {tokens} tokens, not {len(c['ids'])}")
        if c["margin"][0] >= MARGIN:
            top = alternatives(r["choices"][0])
            best = max(top, key=top.get)
            best_n += 1
            best_ok += best == c["top_text"]
            differences.append(abs(top[best] - c["top_logprobs"][0]))
            if best != c["top_text"]:
                wrong.append(f"case {i}: best token {best!r}, not {c['top_text']!r}")
        if c["safe_n"] > 0:
            greedy_n += 1
            same = r["choices"][0]["text"] == c["safe_text"]
            greedy_ok += same
            if not same:
                unequal.append(f"case {i}: {r['choices'][0]['text'][-40:]!r}, not {c['safe_text'][-40:]!r}")
    mean = sum(differences) / max(1, len(differences))
    if greedy_ok < GREEDY * greedy_n - 1e-9:
        wrong += unequal
    if not differences or mean > LOGPROB:
        wrong.append(f"mean difference of the log-probability {mean:.4f} > {LOGPROB}")
    line = (f"{len(reference['cases'])} cases: best token {best_ok}/{best_n}, greedy text up to the first close step {greedy_ok}/{greedy_n}, "
            f"mean |difference of log-probability| {mean:.4f}")
    return line, wrong


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    with open(sys.argv[2]) as f:
        figures, problems = check(sys.argv[1], json.load(f), *sys.argv[3:])
    print(figures)
    for p in problems:
        print("wrong:", p)
    sys.exit(bool(problems))
