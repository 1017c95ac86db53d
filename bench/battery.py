#!/usr/bin/env python3
"""Black-box prompt-caching battery for any server that speaks OpenAI's /v1/completions.

usage: battery.py NAME=URL[#MODEL] [NAME=URL ...] [--only a,b] [--json OUT] [--key KEY] [--restart 'CMD'] [--salt TEXT]

Several servers take each scenario in turn, on the same texts. Each scenario prints times to first token (TTFT) in milliseconds and the
cached tokens as the server reports them. Texts are pieces of this Python's own standard library, chosen by the salt: a server that has
seen a salt is not cold for it any more, so each run takes a new one unless --salt says otherwise.
"""
import argparse, asyncio, json, os, random, statistics, subprocess, sys, sysconfig, time

import aiohttp

STDLIB = sysconfig.get_path("stdlib")
FILES = sorted(f for f in os.listdir(STDLIB) if f.endswith(".py"))


def text(seed, chars):
    """Python source of a length, the same for the same seed; its first line holds the seed, so that no two texts share a prefix."""
    r, out = random.Random(seed), ""
    while len(out) < chars:
        with open(os.path.join(STDLIB, r.choice(FILES)), errors="replace") as f:
            source = f.read()
        if len(source) >= 4000:
            k = r.randrange(len(source) - 3000)
            out += source[k:k + 3000]
    return f"# {seed}\n" + out[:chars]


class Client:
    """One server. Every request has a connection of its own, so that none waits for another."""

    def __init__(self, url, model="smol", key=""):
        self.url, self.model = url.rstrip("/"), model
        self.headers = {"Authorization": "Bearer " + key} if key else {}

    async def __aenter__(self):
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=900), connector=aiohttp.TCPConnector(limit=0, force_close=True))
        return self

    async def __aexit__(self, *_):
        await self.http.close()

    async def go(self, prompt, n=1, **fields):
        """Streams a greedy completion of n tokens and returns its times in seconds, its text and its token counts."""
        body = dict(model=self.model, prompt=prompt, max_tokens=n, temperature=0, stream=True, stream_options={"include_usage": True}, **fields)
        usage, timings, out, chunks, first, last = {}, {}, "", 0, None, None
        start = time.perf_counter()
        async with self.http.post(self.url + "/v1/completions", json=body, headers=self.headers) as r:
            if r.status != 200:
                raise RuntimeError(f"{r.status}: {(await r.text())[:300]}")
            async for line in r.content:
                line = line.strip()
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    break
                event = json.loads(data)
                if event.get("error"):
                    raise RuntimeError(str(event["error"])[:300])
                usage = event.get("usage") or usage
                timings = event.get("timings") or timings
                if event.get("choices"):
                    last = time.perf_counter()
                    first = first or last
                    out += event["choices"][0].get("text") or ""
                    chunks += 1
        end = time.perf_counter()
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        if cached is None:
            cached = timings.get("cache_n")  # llama.cpp
        return dict(ttft=(first or end) - start, total=(last or end) - start, prompt=usage.get("prompt_tokens"), cached=cached, out=out,
                    n=usage.get("completion_tokens", chunks))


def ms(seconds):
    return round(seconds * 1000, 1)


def median(values):
    return statistics.median(values)


async def repeat(c, a):
    """Another question about the same text."""
    cold, warm = [], []
    for i in range(3):
        p = text(f"repeat{i}-{a.salt}", 6000)
        cold.append(await c.go(p + "\n# question one: what does this do?"))
        warm.append(await c.go(p + "\n# question two: where is the bug?"))
    x, y = median([r["ttft"] for r in cold]), median([r["ttft"] for r in warm])
    return dict(prompt=cold[0]["prompt"], cold_ms=ms(x), warm_ms=ms(y), speedup=round(x / y, 1), cached=warm[0]["cached"])


async def many(c, a, n=24):
    """Many conversations, each asked twice with all others in between."""
    ps = [text(f"many{i}-{a.salt}", 4500) for i in range(n)]
    one = [await c.go(p + "\n# one") for p in ps]
    two = [await c.go(p + "\n# two") for p in ps]
    return dict(conversations=n, cold_ms=ms(median([r["ttft"] for r in one])), warm_ms=ms(median([r["ttft"] for r in two])),
                hit=round(sum(r["cached"] or 0 for r in two) / sum(r["prompt"] for r in two), 3))


async def together(c, a, n=8):
    """Clients who arrive at once with the same fresh text, against one cold prompt of that length."""
    p = text(f"tog{a.salt}", 4500)
    one = await c.go(text(f"togx{a.salt}", 4500) + "\n# ref")
    start = time.perf_counter()
    rs = await asyncio.gather(*[c.go(p + f"\n# question {i}", n=8) for i in range(n)])
    took = time.perf_counter() - start
    return dict(clients=n, one_cold_ms=ms(one["ttft"]), all_ms=ms(took), vs_one=round(took / one["ttft"], 2), cached=[r["cached"] for r in rs])


async def edit(c, a):
    """One line changed after a quarter of the text."""
    ratios, cached = [], []
    for i in range(3):
        lines = text(f"edit{i}-{a.salt}", 6000).split("\n")
        x = await c.go("\n".join(lines))
        lines[len(lines) // 4] = "    edited = 'one line changed here'"
        y = await c.go("\n".join(lines))
        ratios.append(y["ttft"] / x["ttft"])
        cached.append(y["cached"])
    return dict(edit_at="25%", ttft_vs_cold=round(median(ratios), 2), cached=cached[0], prompt=y["prompt"])


async def rag(c, a):
    """Four of five known documents, in another order: no prefix cache can do much here."""
    docs = [text(f"rag{i}-{a.salt}", 1500) for i in range(5)]
    for d in docs:
        await c.go(d)
    x = await c.go("\n".join(docs[:4]) + "\n# q1")
    y = await c.go("\n".join([docs[2], docs[0], docs[4], docs[1]]) + "\n# q2")
    return dict(first_ms=ms(x["ttft"]), reordered_ms=ms(y["ttft"]), ratio=round(y["ttft"] / x["ttft"], 2), cached=y["cached"], prompt=y["prompt"])


async def chat(c, a, turns=12):
    """A conversation that grows; the model's own answers are part of the next prompt."""
    history, rs = text(f"chat{a.salt}", 3000), []
    for i in range(turns):
        history += f"\nUser: {text(f'turn{i}-{a.salt}', 200)}\nAssistant:"
        rs.append(await c.go(history, n=24))
        history += rs[-1]["out"]
    t = [r["ttft"] for r in rs]
    return dict(turns=turns, first_ms=ms(t[0]), later_p50_ms=ms(median(t[1:])), last_ms=ms(t[-1]), last_cached=rs[-1]["cached"], last_prompt=rs[-1]["prompt"])


async def decode(c, a, n=8):
    """Streams over a shared prefix, and one alone."""
    p = text(f"dec{a.salt}", 6000)
    await c.go(p)
    start = time.perf_counter()
    rs = await asyncio.gather(*[c.go(p + f"\n# variant {i}\n", n=48, ignore_eos=True) for i in range(n)])
    took = time.perf_counter() - start
    one = await c.go(p + "\n# alone\n", n=48, ignore_eos=True)
    return dict(clients=n, shared_prefix=rs[0]["prompt"], tok_s=round(sum(r["n"] for r in rs) / took, 1), alone_tok_s=round(one["n"] / one["total"], 1))


async def keys(c, a):
    """Code completion: a request at every keystroke in the middle of a file."""
    f = text(f"keys{a.salt}", 6000)
    head, tail, typed, rs = f[:4500], f[4500:], "def helper(value):\n    return val", []
    for i in range(len(typed)):
        rs.append(await c.go(f"<|fim_prefix|>{head}{typed[:i]}<|fim_suffix|>{tail}<|fim_middle|>"))
    t = [r["ttft"] for r in rs]
    return dict(keystrokes=len(typed), first_ms=ms(t[0]), later_p50_ms=ms(median(t[1:])), cached=rs[-1]["cached"], prompt=rs[-1]["prompt"])


async def exact(c, a, n=6):
    """Greedy text with a warm cache must equal the text of a cold run."""
    same = 0
    for i in range(n):
        p = text(f"exact{i}-{a.salt}", 2500)
        x, y = await c.go(p, n=32), await c.go(p, n=32)
        same += x["out"] == y["out"]
    return dict(same=f"{same}/{n}")


async def restart(c, a):
    """The same text after the server was started again."""
    p = text(f"restart{a.salt}", 6000)
    x = await c.go(p + "\n# before")
    await asyncio.sleep(2)  # what is written behind the request
    subprocess.run(a.restart, shell=True, check=True)
    for _ in range(600):
        try:
            async with c.http.get(c.url + "/v1/models", headers=c.headers) as r:
                if r.status == 200:
                    break
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(.1)
    await c.go("warm up")
    y = await c.go(p + "\n# after")
    return dict(cold_ms=ms(x["ttft"]), after_restart_ms=ms(y["ttft"]), ratio=round(x["ttft"] / y["ttft"], 1), cached=y["cached"])


SCENARIOS = dict(repeat=repeat, many=many, together=together, edit=edit, rag=rag, chat=chat, decode=decode, keys=keys, exact=exact)


async def main():
    ap = argparse.ArgumentParser(description="Prompt-caching battery for OpenAI-compatible servers.", epilog="scenarios: " + ", ".join(f"{k} ({f.__doc__})" for k, f in SCENARIOS.items()))
    ap.add_argument("servers", nargs="+", help="NAME=URL (model name 'smol'; NAME=URL#MODEL for another)")
    ap.add_argument("--only", help="scenarios, separated by commas")
    ap.add_argument("--json", help="file for the results")
    ap.add_argument("--key", default="", help="API key")
    ap.add_argument("--restart", help="command that restarts the first server")
    ap.add_argument("--salt", default=str(random.randrange(10**6)), help="what the texts are chosen by")
    a = ap.parse_args()
    only = a.only.split(",") if a.only else list(SCENARIOS)
    if unknown := set(only) - set(SCENARIOS):
        ap.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    results, clients, failed = {}, {}, False
    for s in a.servers:
        name, eq, url = s.partition("=")
        if not eq:
            ap.error(f"{s}: want NAME=URL")
        url, _, model = url.partition("#")
        clients[name], results[name] = await Client(url, model or "smol", a.key).__aenter__(), {}
    try:
        for c in clients.values():
            await c.go("Hello")
        for k in [k for k in SCENARIOS if k in only]:
            for name, c in clients.items():
                try:
                    results[name][k] = await SCENARIOS[k](c, a)
                except Exception as e:  # one server's failure must not end the run of the others
                    results[name][k], failed = dict(error=f"{type(e).__name__}: {e}"[:200]), True
                print(f"{k:9s} {name:8s}", json.dumps(results[name][k]), flush=True)
        if a.restart:
            name = next(iter(clients))
            results[name]["restart"] = await restart(clients[name], a)
            print(f"{'restart':9s} {name:8s}", json.dumps(results[name]["restart"]))
    finally:
        for c in clients.values():
            await c.__aexit__()
        if a.json:
            with open(a.json, "w") as f:
                json.dump(dict(salt=a.salt, results=results), f, indent=1)
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
