"""Makes the fixtures of SentencePiece's BPE in this folder.

    python spm.py

Needs the packages sentencepiece (0.2.3 made what is here) and tokenizers (0.23.3). Small vocabularies are trained on made-up text, and
nasty texts encoded with the libraries themselves:

    spm.json.gz        {name: {"model", "prefix", "tokens", "types", "scores" or "merges"}, ...}, as a GGUF file has them
    spm_ids.jsonl.gz   {"t": text, name: [id, ...], ...}

    llama    with a space before the text and single digits, as Llama 2 and Mistral
    gemma    without; runs of line ends, spaces and tabs, and HTML tags, are user-defined
    loose    trained across white space, so that tokens begin and end anywhere
    gemma4   characters with a list of merges, trained and encoded by tokenizers

With llama and gemma the script also checks that tokenizers, given the same vocabulary as merges, has the same ids.
"""

import gzip
import io
import json
import random

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

source = open("golden.py").read()
golden = {}
exec(source[: source.index("def goldens(")].replace("from gguf import GGUFReader\n", ""), golden)

SPACE = "\u2581"
STEMS = """cache prefix token block model layer memory prompt stream engine weight batch decode tensor kernel answer question
river window garden bridge letter morning silver yellow market winter summer people travel little number simple
straße über größe müssen können français élève garçon niño mañana señor città perché
вода слово время человек работа город 水 山 東京 日本語 学校 静かな 言葉 한국 사람 사랑 ねこ いぬ""".split()
ENDINGS = ["", "", "", "s", "ed", "ing", "er", "ly", "tion", "ment", "ness", "able"]
GLUE = [" "] * 12 + [", ", ". ", "\n", "\n\n", "  ", "    ", ": ", " = ", "(", ") ", "_", "-", "/", " 12", " 2024 ", "\t", "'s ", " \"", "\" ", "<b>", "</b>"]


def corpus(seed, n):
    rng = random.Random(seed)
    weights = [1 / (1 + i) ** 0.5 for i in range(len(STEMS))]
    for _ in range(n):
        parts = []
        for _ in range(rng.randint(5, 40)):
            parts += [rng.choices(STEMS, weights)[0] + rng.choice(ENDINGS), rng.choice(GLUE)]
        yield "".join(parts)


def train(**options):
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=corpus(1, 4000), model_writer=out, model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, character_coverage=0.9995, max_sentence_length=1 << 16, num_threads=1, minloglevel=2, **options)
    model = pb.ModelProto()
    model.ParseFromString(out.getvalue())
    return model, spm.SentencePieceProcessor(model_proto=out.getvalue())


RUNS = [c * n for c, most in (("\n", 8), (SPACE, 8), ("\t", 4)) for n in range(2 if c == SPACE else 1, most + 1)]


def models_of_sentencepiece():
    yield "llama", *train(vocab_size=900, add_dummy_prefix=True, split_digits=True)
    yield "gemma", *train(vocab_size=900, add_dummy_prefix=False, split_digits=True, user_defined_symbols=RUNS + ["<b>", "</b>", "[x]"])
    yield "loose", *train(vocab_size=700, add_dummy_prefix=False, split_by_whitespace=False, split_by_number=False, split_by_unicode_script=False, max_sentencepiece_length=12)


def as_file(model, name):
    """What a converter writes: user-defined tokens with spaces, all else as it is."""
    pieces = model.pieces
    return {
        "model": "llama",
        "prefix": name == "llama",
        "tokens": [p.piece.replace(SPACE, " ") if p.type == 4 else p.piece for p in pieces],
        "types": [p.type for p in pieces],
        "scores": [p.score for p in pieces],
    }


def as_merges(model, name):
    """The tokenizer that transformers makes of a vocabulary with scores."""
    vocab = {t: i for i, t in enumerate(as_file(model, name)["tokens"])}
    score = {p.piece: p.score for p in model.pieces if p.type == 1}
    merges = []
    for piece, s in score.items():
        for i in range(1, len(piece)):
            if piece[:i] in score and piece[i:] in score:
                merges.append((-s, i, piece[:i], piece[i:]))
    merges.sort(key=lambda m: m[0])
    tok = Tokenizer(models.BPE(vocab, [m[2:] for m in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Prepend(SPACE)] if name == "llama" else []
    tok.normalizer = normalizers.Sequence(steps + [normalizers.Replace(" ", SPACE)])
    tok.add_tokens([AddedToken(p.piece.replace(SPACE, " "), normalized=False) for p in model.pieces if p.type == 4])
    return tok


def gemma4():
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Replace(" ", SPACE)
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>"] + ["<0x%02X>" % b for b in range(256)]
    lines = [piece for s in corpus(2, 4000) for piece in s.replace("\n", " \n").split(" ") for piece in (piece, " " + piece)]
    tok.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=900, special_tokens=special, limit_alphabet=200, show_progress=False))
    data = json.loads(tok.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    tok = Tokenizer.from_str(json.dumps(data))
    vocab = data["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get)
    return tok, {
        "model": "gemma4",
        "prefix": False,
        "tokens": tokens,
        "types": [6 if t.startswith("<0x") else 3 if i < 4 else 1 for i, t in enumerate(tokens)],
        "merges": [" ".join(m) for m in data["model"]["merges"]],
    }


def main():
    rng, groups = random.Random(3), golden["alphabets"]()
    own = [STEMS, [s + e for s in STEMS for e in ENDINGS], GLUE]
    texts = list(corpus(4, 150))
    while len(texts) < 600:
        chosen = groups + own * 8
        s = golden["text"](rng, [rng.choice(chosen) for _ in range(4)]) if rng.random() < 0.7 else golden["text"](rng, own)
        if "\0" not in s and SPACE not in s:
            texts.append(s)
    answers, files = {}, {}
    for name, model, processor in models_of_sentencepiece():
        files[name] = as_file(model, name)
        answers[name] = [processor.encode_as_ids(s) for s in texts]
        if name == "loose":
            continue
        tok = as_merges(model, name)
        for s, ids in zip(texts, answers[name]):
            if tok.encode(s).ids != ids:
                raise SystemExit("%s: the libraries differ: %r\n%r\n%r" % (name, s, tok.encode(s).tokens, processor.encode_as_pieces(s)))
    tok, files["gemma4"] = gemma4()
    answers["gemma4"] = [tok.encode(s).ids for s in texts]
    golden["lines"]("spm.json.gz", [golden["row"](files)])
    golden["lines"]("spm_ids.jsonl.gz", (golden["row"]({"t": s} | {n: a[i] for n, a in answers.items()}) for i, s in enumerate(texts)))


main()
