#!/usr/bin/env python3
"""Checks a kvasir binary over HTTP with the default model: what is reused, that reuse changes nothing, and the reference values.

usage: smoke.py BIN

Only counts and values are checked, never times. Prompts are token ids, so that the tokens which two prompts share are known exactly; the ids are
texts of the reference file. Needs aiohttp.
"""
import asyncio, json, pathlib, re, signal, subprocess, sys, tempfile, threading, time

import aiohttp

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))
import refcheck  # noqa: E402

MODEL = "smol"
REFERENCE = json.loads((ROOT / "internal" / "testdata" / "smollm2-135m.json").read_text())
TEXT = [i for c in REFERENCE["cases"] if c["kind"] == "code" for i in c["ids"]]  # some thousand tokens of source code
QUESTIONS = [c["ids"][:8] for c in REFERENCE["cases"] if c["kind"] == "line" and len(c["ids"]) >= 8]


class Server:
    """The binary on a free port, ended by its process id."""

    def __init__(self, binary, *flags):
        self.data = tempfile.TemporaryDirectory()
        self.log, self.ready = [], None
        ready = threading.Event()
        self.process = subprocess.Popen([binary, "serve", "--addr", "127.0.0.1:0", "--served-model-name", MODEL, "--data-dir", self.data.name, "--cache-mem", "512MiB", *flags],
                                        stderr=subprocess.PIPE, text=True)
        self.url = None

        def read():
            for line in self.process.stderr:
                self.log.append(line)
                if self.url is None and (m := re.search(r"ready in .*?: (http://\S+)", line)):
                    self.ready, self.url = line.strip(), m[1]
                    ready.set()
            ready.set()

        self.reader = threading.Thread(target=read, daemon=True)
        self.reader.start()
        if not ready.wait(300) or self.url is None:
            self.process.kill()
            raise RuntimeError(f"the server did not get ready:\n{''.join(self.log)}")

    def stop(self):
        """Ends the server as a service manager would and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = "killed, it did not end within 60 s of SIGTERM"
        self.reader.join(5)
        self.data.cleanup()
        return code


class Checks:
    def __init__(self, http, url):
        self.http, self.url, self.failed, self.fresh = http, url, [], 0

    def expect(self, what, got, want):
        if got != want:
            self.failed.append(f"{what}: {got}, want {want}")

    async def post(self, path, **body):
        async with self.http.post(self.url + path, json=dict(model=MODEL, temperature=0, **body)) as r:
            answer = await r.json()
            if r.status != 200:
                raise RuntimeError(f"{path}: {r.status} {answer}")
            return answer

    async def complete(self, prompt, n=1, **fields):
        """Returns (usage, cached tokens, choice)."""
        r = await self.post("/v1/completions", prompt=prompt, max_tokens=n, **fields)
        return r["usage"], r["usage"]["prompt_tokens_details"]["cached_tokens"], r["choices"][0]

    def text(self, n):
        """n token ids whose first one no other text has."""
        self.fresh += 1
        at = 97 * self.fresh % len(TEXT)
        return [1000 + self.fresh] + (TEXT[at:] + TEXT)[:n - 1]

    async def exact(self, uncached):
        """Tokens and log-probabilities are the same with a cold prefix, with a warm one, with one that is warm in part, and without a cache."""
        same = compared = 0
        for n in (150, 333, 512):
            p = self.text(n)
            part = p[:n // 2] + QUESTIONS[0]
            for prompt, reused in ((p, 0), (p, n - 1), (part, n // 2 + common(QUESTIONS[0], p[n // 2:])), (part, len(part) - 1)):
                _, cached, got = await self.complete(prompt, 24, logprobs=5)
                self.expect(f"exact {n}: cached", cached, reused)
                _, cached, want = await uncached.complete(prompt, 24, logprobs=5)
                self.expect(f"exact {n}, without a cache: cached", cached, 0)
                same += (got["text"], got["logprobs"]) == (want["text"], want["logprobs"])
                compared += 1
        self.expect("exact: answers with the same text and log-probabilities", same, compared)
        return f"{same}/{compared} equal"

    async def repeat(self):
        """Another question about the same text reuses the text, to the token."""
        seen = []
        for n in (64, 500, 701):
            p = self.text(n)
            first = p + QUESTIONS[0]
            await self.complete(first)
            for q in (QUESTIONS[1], QUESTIONS[2][:1]):
                _, cached, _ = await self.complete(p + q)
                self.expect(f"repeat {n}: cached", cached, min(common(first, p + q), len(p + q) - 1))
                seen.append(cached)
        # The same with text: where tokens end at the seam is the tokenizer's affair, so the tokens of the text may differ by a few.
        t = REFERENCE["cases"][-8]["text"] + "\n\n"
        alone, _, _ = await self.complete(t)
        _, cached, _ = await self.complete(t + "# Where is the bug?")
        if not alone["prompt_tokens"] - 2 <= cached <= alone["prompt_tokens"]:
            self.failed.append(f"repeat, text: {cached} cached of {alone['prompt_tokens']}")
        return f"cached {seen}"

    async def chat(self):
        """Each turn reuses the one before with its answer. A bias makes the answers' tokens known; the last token of an answer has
        no KV yet when the turn ends, so it is computed in the next one."""
        history, shared, seen, n = self.text(300), 0, [], 8
        for turn in range(5):
            usage, cached, _ = await self.complete(history, n, logit_bias={str(5000 + turn): 100}, ignore_eos=True)
            self.expect(f"chat, turn {turn}: tokens generated", usage["completion_tokens"], n)
            self.expect(f"chat, turn {turn}: cached", cached, shared)
            seen.append(cached)
            shared = len(history) + n - 1
            history = history + [5000 + turn] * n + QUESTIONS[turn % len(QUESTIONS)]
        # Through the chat template: at least all of the previous prompt, at most what was generated for it too.
        messages, before = [dict(role="user", content="What is a prefix cache?")], None
        for turn in range(3):
            r = await self.post("/v1/chat/completions", messages=messages, max_tokens=16)
            u = r["usage"]
            cached = u["prompt_tokens_details"]["cached_tokens"]
            if before and not before["prompt_tokens"] - 1 <= cached < before["prompt_tokens"] + before["completion_tokens"]:
                self.failed.append(f"chat template, turn {turn}: {cached} cached after {before}")
            before = u
            messages += [dict(role="assistant", content=r["choices"][0]["message"]["content"]), dict(role="user", content=f"And then, number {turn}?")]
        return f"cached {seen}"

    async def many(self, n=6, length=700):
        """Conversations in turn do not push each other out."""
        ps = [self.text(length) for _ in range(n)]
        for p in ps:
            await self.complete(p + QUESTIONS[0][:3])
        rs = [await self.complete(p + QUESTIONS[1][:3]) for p in ps]
        hit = sum(r[1] for r in rs) / sum(r[0]["prompt_tokens"] for r in rs)
        if hit < 0.99:
            self.failed.append(f"many: hit {hit:.4f}, want at least 0.99")
        return f"hit {hit:.4f}"

    async def together(self, n=8, length=601):
        """Clients who arrive at once: each shared token is computed by one of them."""
        p = self.text(length)
        rs = await asyncio.gather(*[self.complete(p + [7000 + i, 7100 + i, 7200 + i], 4) for i in range(n)])
        cached = sorted(r[1] for r in rs)
        self.expect("together: cached", cached, [0] + [length] * (n - 1))
        return f"cached {cached}"


def common(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


async def scenarios(url, uncached_url):
    """Runs all and returns what is wrong."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as http:
        c, uncached = Checks(http, url), Checks(http, uncached_url)
        for f, args in ((c.exact, [uncached]), (c.repeat, []), (c.chat, []), (c.many, []), (c.together, [])):
            start = time.monotonic()
            figures = await f(*args)
            print(f"{f.__name__:9s} {figures}  ({time.monotonic() - start:.1f} s)", flush=True)
        return c.failed


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    servers, failed = [], []
    try:
        for flags in ([], ["--cache", "off"]):
            servers.append(Server(sys.argv[1], *flags))
            print(servers[-1].ready)
        failed += asyncio.run(scenarios(*[s.url for s in servers]))
        figures, wrong = refcheck.check(servers[0].url, REFERENCE, MODEL)
        print("reference", figures, flush=True)
        failed += wrong
    except Exception as e:
        failed.append(f"{type(e).__name__}: {e}")
    finally:
        codes = [s.stop() for s in servers]
    failed += [f"exit code after SIGTERM: {c}, want 0" for c in codes if c != 0]
    for f in failed:
        print("FAILED", f)
    if failed:
        print("".join(line for s in servers for line in s.log[-20:]), end="")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
