"""The openai package against a running server, as a user would write it."""
import concurrent.futures, pathlib, subprocess

import openai
import pytest
from conftest import ROOT

MODEL = "smol"


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server + "/v1", api_key="none", max_retries=2)


def test_models(client):
    assert [m.id for m in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"


def test_chat(client):
    r = client.chat.completions.create(model=MODEL, temperature=0, max_tokens=24, messages=[
        {"role": "user", "content": [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": " of France?"}]}])
    c = r.choices[0]
    assert c.message.role == "assistant" and "Paris" in c.message.content
    assert r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens
    assert r.usage.prompt_tokens_details.cached_tokens < r.usage.prompt_tokens


def test_chat_turns_are_cached(client):
    msgs = [{"role": "user", "content": "Tell me about rivers, in two sentences. " * 20}]
    a = client.chat.completions.create(model=MODEL, temperature=0, max_tokens=20, messages=msgs)
    msgs += [{"role": "assistant", "content": a.choices[0].message.content}, {"role": "user", "content": "And lakes?"}]
    b = client.chat.completions.create(model=MODEL, temperature=0, max_tokens=5, messages=msgs)
    # The template of this model puts each turn behind the other, so all of the first prompt is there again.
    assert b.usage.prompt_tokens_details.cached_tokens >= a.usage.prompt_tokens


def test_stream_equals_whole(client):
    kw = dict(model=MODEL, temperature=0, max_tokens=40, messages=[{"role": "user", "content": "Count from one to ten. 🙂"}])
    whole = client.chat.completions.create(**kw)
    text, usage, finish = "", None, None
    for e in client.chat.completions.create(**kw, stream=True, stream_options={"include_usage": True}):
        if e.choices:
            text += e.choices[0].delta.content or ""
            finish = e.choices[0].finish_reason or finish
        usage = e.usage or usage
    assert text == whole.choices[0].message.content
    assert finish == whole.choices[0].finish_reason
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1


def test_completions(client):
    r = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=5, temperature=0)
    assert r.choices[0].text.startswith(" Paris")
    ids = client.completions.create(model=MODEL, prompt=[504, 3575, 282, 4649, 314], max_tokens=5, temperature=0)
    assert ids.choices[0].text == r.choices[0].text
    many = client.completions.create(model=MODEL, prompt=["1, 2, 3,", "a, b, c,"], n=2, max_tokens=4, temperature=0)
    assert [c.index for c in many.choices] == [0, 1, 2, 3]
    assert many.choices[0].text == many.choices[1].text != many.choices[2].text


def test_echo_stop_seed(client):
    r = client.completions.create(model=MODEL, prompt="1, 2, 3, 4,", max_tokens=30, temperature=0, stop=[" 8"], echo=True)
    assert r.choices[0].text.startswith("1, 2, 3, 4, 5") and " 8" not in r.choices[0].text
    assert r.choices[0].finish_reason == "stop"
    kw = dict(model=MODEL, prompt="Once upon a time", max_tokens=20, temperature=1.0, seed=7)
    a, b = (client.completions.create(**kw).choices[0].text for _ in "ab")
    kw["seed"] = 8
    assert a == b != client.completions.create(**kw).choices[0].text


def test_logprobs(client):
    r = client.chat.completions.create(model=MODEL, temperature=0, max_tokens=3, logprobs=True, top_logprobs=5,
                                       messages=[{"role": "user", "content": "Say hello."}])
    for t in r.choices[0].logprobs.content:
        assert len(t.top_logprobs) == 5 and t.logprob == max(x.logprob for x in t.top_logprobs) <= 0
        assert bytes(t.bytes).decode() == t.token
    c = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=2, temperature=0, logprobs=3).choices[0].logprobs
    assert len(c.tokens) == len(c.token_logprobs) == 2 and len(c.top_logprobs[0]) == 3


def test_errors(client):
    with pytest.raises(openai.NotFoundError) as e:
        client.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "x"}])
    assert e.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as e:
        client.completions.create(model=MODEL, prompt="word " * 20000)
    assert e.value.code == "context_length_exceeded" and "20" in e.value.message
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}], temperature=-1)
    assert e.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}],
                                       tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
    assert e.value.param == "tools"


def test_retries_when_busy(server, client):
    """More callers than the queue holds: some are answered 429, the SDK waits and tries again, and all succeed."""
    c = client.with_options(max_retries=12)
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        rs = list(pool.map(lambda i: c.completions.create(model=MODEL, prompt=f"{i} is", max_tokens=8, temperature=0), range(40)))
    assert all(r.usage.completion_tokens >= 1 for r in rs)


def test_keys_and_tenants(launch, tmp_path):
    keys = tmp_path / "keys.yaml"
    key = [subprocess.run([ROOT / "bin" / "kvasir", "keys", "add", keys, t], check=True, capture_output=True, text=True).stdout.strip() for t in ("a", "a", "b")]
    p, url = launch("--cache-mem", "256MiB", "--served-model-name", MODEL, "--api-keys", str(keys))
    c = [openai.OpenAI(base_url=url + "/v1", api_key=k) for k in key]
    prompt = "A secret plan of one tenant. " * 30
    cached = [x.completions.create(model=MODEL, prompt=prompt, max_tokens=1).usage for x in c]
    n = cached[0].prompt_tokens
    assert [u.prompt_tokens_details.cached_tokens for u in cached] == [0, n - 1, 0]
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=url + "/v1", api_key="wrong").models.list()


def test_cache_off(launch):
    p, url = launch("--cache-mem", "256MiB", "--served-model-name", MODEL, "--cache", "off")
    c = openai.OpenAI(base_url=url + "/v1", api_key="none")
    for _ in range(2):
        assert c.completions.create(model=MODEL, prompt="Again and again " * 20, max_tokens=1).usage.prompt_tokens_details.cached_tokens == 0


def test_drain(launch):
    """SIGTERM lets a running stream finish."""
    p, url = launch("--cache-mem", "256MiB", "--served-model-name", MODEL)
    c = openai.OpenAI(base_url=url + "/v1", api_key="none")
    n = 0
    for e in c.completions.create(model=MODEL, prompt="Tell a long story.", max_tokens=200, temperature=0, stream=True, extra_body={"ignore_eos": True}, stream_options={"include_usage": True}):
        if n == 0:
            p.terminate()
        n = e.usage.completion_tokens if e.usage else max(n, 1)
    assert n == 200
    assert p.wait(60) == 0


PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 30}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
                                           "kind": {"enum": ["friend", "foe"]}, "born": {"type": "string", "format": "date"}},
          "required": ["name", "age", "kind", "born"], "additionalProperties": False}


def test_json_schema(client):
    import datetime, json
    kw = dict(model=MODEL, max_tokens=120, seed=3, messages=[{"role": "user", "content": "Invent a person."}],
              response_format={"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}})
    for temperature in 0, 1.5:
        r = client.chat.completions.create(**kw, temperature=temperature)
        v = json.loads(r.choices[0].message.content)
        assert r.choices[0].finish_reason == "stop" and list(v) == ["name", "age", "kind", "born"]
        assert len(v["name"]) <= 30 and 0 <= v["age"] <= 120 and v["kind"] in ("friend", "foe") and datetime.date.fromisoformat(v["born"])
    text = "".join(e.choices[0].delta.content or "" for e in client.chat.completions.create(**kw, temperature=1.5, stream=True) if e.choices)
    assert text == r.choices[0].message.content


def test_parsed(client):
    """The SDK's own way: a pydantic model in, an object out."""
    import pydantic, typing

    class Step(pydantic.BaseModel):
        text: str = pydantic.Field(max_length=20)
        minutes: typing.Optional[int]

    class Plan(pydantic.BaseModel):
        title: typing.Literal["tea", "coffee"]
        steps: list[Step] = pydantic.Field(min_length=1, max_length=2)

    r = client.chat.completions.parse(model=MODEL, max_tokens=200, temperature=0.5, seed=1, response_format=Plan,
                                      messages=[{"role": "user", "content": "How do I make tea? Two short steps."}])
    plan = r.choices[0].message.parsed
    assert plan.title in ("tea", "coffee") and 1 <= len(plan.steps) <= 2 and all(len(s.text) <= 20 for s in plan.steps)


def test_json_object_regex_choice(client):
    import json, re
    ask = lambda **kw: client.chat.completions.create(model=MODEL, temperature=0, max_tokens=300, messages=[{"role": "user", "content": "Is water wet?"}], **kw).choices[0]
    c = ask(response_format={"type": "json_object"})
    assert c.message.content.startswith("{") and (c.finish_reason == "length" or isinstance(json.loads(c.message.content), dict))
    assert ask(extra_body={"structured_outputs": {"choice": ["yes", "no"]}}).message.content in ("yes", "no")
    assert ask(extra_body={"guided_choice": ["maybe"]}).message.content == "maybe"
    assert re.fullmatch(r"(yes|no), [a-z]{3,8}\.", ask(extra_body={"guided_regex": r"(yes|no), [a-z]{3,8}\."}).message.content)


def test_json_schema_errors(client):
    def fails(**kw):
        with pytest.raises(openai.BadRequestError) as e:
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}], **kw)
        return e.value
    e = fails(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "items": {}, "uniqueItems": True}}})
    assert e.param == "response_format.json_schema.schema" and "uniqueItems" in e.message
    assert fails(extra_body={"guided_regex": "("}).param == "guided_regex"
    assert fails(extra_body={"grammar": "root ::= x"}).param == "grammar"
