"""Makes ../classdata.go and the fixtures of this folder.

    python golden.py MODEL.gguf [COUNT PREFIX]

MODEL.gguf is SmolLM2-135M-Instruct (Apache-2.0). Needs the packages gguf and tokenizers (0.23.3 made what is here). The answers are
those of the tokenizers library with each model's published pre-tokenizer:

    smollm2.txt.gz   the vocabulary: pre, count of tokens, of control tokens (which come first), tokens, merges; a line each
    split.jsonl.gz   {"t": text, pattern: [bytes of each piece, ...], ...}
    ids.jsonl.gz     {"t": text, "ids": [...]}, the whole of SmolLM 2's encoding without special tokens
    pre.jsonl.gz     {"t": text, pattern: [id, ...], ...}, the same with SmolLM 2's vocabulary behind other models' pre-tokenizers

With COUNT and PREFIX it writes instead COUNT texts from another seed to PREFIXsplit.jsonl.gz and PREFIXids.jsonl.gz, for
a longer check by hand: TOKEN_GOLDEN=PREFIX go test -run Golden.
"""

import gzip
import json
import random
import sys
import unicodedata

from gguf import GGUFReader
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

TIKTOKEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(use_regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def sequence(*parts):
    """Pre-tokenizers one after another; strings are patterns. Pieces come in the byte alphabet."""
    return pre_tokenizers.Sequence([split(p) if isinstance(p, str) else p for p in parts] + [byte_level()])


CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
NO_LOWER, NO_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (
    r"[^\r\n\p{L}\p{N}]?" + NO_LOWER + "*" + NO_UPPER + "+%s|" + r"[^\r\n\p{L}\p{N}]?" + NO_LOWER + "+" + NO_UPPER + "*%s|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN35 = (
    CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SEED_CODER = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
MINICPM5 = TIKTOKEN % r"\p{N}+"
DEEPSEEK_WORD = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
CASED_LETTERS = (
    "A-Za-z\\u00B5\\u00C0-\\u00D6\\u00D8-\\u00F6\\u00F8-\\u01BA\\u01BC-\\u01BF\\u01C4-\\u0293\\u0295-\\u02AF\\u0370-\\u0373\\u0376\\u0377"
    "\\u037B-\\u037D\\u037F\\u0386\\u0388-\\u038A\\u038C\\u038E-\\u03A1\\u03A3-\\u03F5\\u03F7-\\u0481\\u048A-\\u052F\\u0531-\\u0556\\u10A0-\\u10C5"
    "\\u13A0-\\u13F5\\u13F8-\\u13FD\\u1C90-\\u1CBA\\u1CBD-\\u1CBF\\u1D00-\\u1D2B\\u1D6B-\\u1D77\\u1D79-\\u1D9A\\u1E00-\\u1F15\\u1F18-\\u1F1D"
    "\\u1F20-\\u1F45\\u1F48-\\u1F4D\\u1F50-\\u1F57\\u1F59\\u1F5B\\u1F5D\\u1F5F-\\u1F7D\\u1F80-\\u1FB4\\u1FB6-\\u1FBC\\u1FBE\\u1FC2-\\u1FC4\\u1FC6-\\u1FCC"
    "\\u1FD0-\\u1FD3\\u1FD6-\\u1FDB\\u1FE0-\\u1FEC\\u1FF2-\\u1FF4\\u1FF6-\\u1FFC\\u2102\\u2107\\u210A-\\u2113\\u2115\\u2119-\\u211D\\u2124\\u2126\\u2128"
    "\\u212A-\\u212D\\u212F-\\u2134\\u2139\\u213C-\\u213F\\u2145-\\u2149\\u214E\\u2183\\u2184\\u2C00-\\u2C7B\\u2C7E-\\u2CE4\\u2CEB-\\u2CEE\\u2CF2\\u2CF3"
    "\\uA640-\\uA66D\\uA680-\\uA69B\\uA722-\\uA76F\\uA771-\\uA787\\uA78B-\\uA78E\\uAB70-\\uABBF\\uFB00-\\uFB06\\uFB13-\\uFB17\\uFF21-\\uFF3A\\uFF41-\\uFF5A"
    "\\U00010400-\\U0001044F\\U000104B0-\\U000104D3\\U000104D8-\\U000104FB\\U00010C80-\\U00010CB2\\U00010CC0-\\U00010CF2\\U000118A0-\\U000118DF\\U0001E900-\\U0001E943"
).encode().decode("unicode_escape")
ASIAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
digits = pre_tokenizers.Digits(individual_digits=True)

PATTERNS = {
    "gpt2": byte_level(True),
    "smollm": pre_tokenizers.Sequence([digits, byte_level(True)]),
    "llama3": sequence(TIKTOKEN % r"\p{N}{1,3}"),
    "qwen2": sequence(TIKTOKEN % r"\p{N}"),
    "qwen35": sequence(QWEN35),
    "seed-coder": sequence(SEED_CODER),
    "minicpm5": sequence(r"\p{N}{1,3}", MINICPM5),
    "tekken": sequence(CASED % ("", "", r"\p{N}")),
    "gpt-4o": sequence(CASED % (CONTRACTION + "?", CONTRACTION + "?", r"\p{N}{1,3}")),
    "deepseek-llm": sequence("[\r\n]", r"\s?[" + CASED_LETTERS + "]+", "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$", ASIAN, digits),
    "deepseek-coder": sequence("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", ASIAN, digits),
    "deepseek-v3": sequence(r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", DEEPSEEK_WORD),
    "falcon": pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), byte_level(True), pre_tokenizers.Digits(individual_digits=False), split("[0-9][0-9][0-9]")]),
}
WHOLE = {"llama3", "minicpm5", "tekken"}  # BPE's ignore_merges


def lengths(pattern, text):
    """Bytes of each piece, which in the byte alphabet are its characters."""
    out = [len(piece) for piece, _ in PATTERNS[pattern].pre_tokenize_str(text)]
    assert sum(out) == len(text.encode()), (pattern, text)
    return out


def classes():
    """Ranges of code points (lo, hi, class) as the regex engine of the library knows them."""
    kind = [0] * 0x110000
    for name, pattern in enumerate((r"[\p{Lm}\p{Lo}]", r"[\p{Lu}\p{Lt}]", r"\p{Ll}", r"\p{N}", r"\s", r"\p{M}", r"\p{P}", r"\p{S}"), 1):
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        for base in range(0, 0x110000, 4096):
            chars = [chr(c) for c in range(base, base + 4096) if not 0xD800 <= c < 0xE000]
            if chars:  # NUL between them is of no class
                for piece, _ in split.pre_tokenize_str("\0".join(chars)):
                    if "\0" not in piece and len(piece) == 1:
                        kind[ord(piece)] = name
    out, lo = [], 0
    for c in range(1, 0x110001):
        if c == 0x110000 or kind[c] != kind[lo]:
            if kind[lo]:
                out.append((lo, c - 1, kind[lo]))
            lo = c
    return out


def write_classes(path):
    names = ["other", "letter", "upper", "lower", "number", "space", "mark", "punct", "symbol"]
    with open(path, "w") as f:
        f.write("// Code generated by testdata/golden.py. DO NOT EDIT.\n\npackage token\n\n")
        f.write("// classRanges are the code points that are not other, in order.\nvar classRanges = [...]classRange{\n")
        all_classes = classes()
        for i, (lo, hi, kind) in enumerate(all_classes):
            f.write("%s{0x%04X, 0x%04X, %s},%s" % ("\t" if i % 6 == 0 else " ", lo, hi, names[kind], "\n" if i % 6 == 5 or i == len(all_classes) - 1 else ""))
        f.write("}\n\n// punctDiffers are those whose being punctuation is another for the library's Punctuation, with an older Unicode.\n")
        f.write("var punctDiffers = runeRanges{\n")
        is_punct = {c for lo, hi, kind in all_classes for c in range(lo, hi + 1) if names[kind] == "punct" or names[kind] == "symbol" and c < 128}
        start = None
        for c in list(range(0xD800)) + list(range(0xE000, 0x110001)):
            differs = c < 0x110000 and (c in is_punct) != (len(pre_tokenizers.Punctuation().pre_tokenize_str("a" + chr(c))) == 2)
            if differs and start is None:
                start = c
            if not differs and start is not None:
                f.write("\t{0x%04X, 0x%04X},\n" % (start, c - 1))
                start = None
        f.write("}\n")


def alphabets():
    """Groups of characters; a text mixes a few of them."""
    by_category = {}
    for c in range(0x30000):
        if 0xD800 <= c < 0xE000:
            continue
        by_category.setdefault(unicodedata.category(chr(c)), []).append(chr(c))
    groups = [list("abcdefghijklmnopqrstuvwxyz"), list("ABCXYZ"), list("0123456789"), list(" "), list("   \n"), list("\r\n\t ")]
    groups += [list("'"), list(".,;:!?-_/\\()[]{}<>|@#$%^&*+=~`\""), list("\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2003\u2009\u2028\u2029\u202f\u205f\u3000\u200b\u200d\ufeff\x1c\x1f\x00")]
    groups += [by_category[c] for c in ("Ll", "Lu", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "So", "Sm", "Sc", "Sk", "Pd", "Po", "Ps", "Cf", "Cc")]
    groups += [[chr(c) for c in range(*r)] for r in ((0x4E00, 0x9FA0), (0x3040, 0x30FF), (0xAC00, 0xD7A4), (0x600, 0x700), (0x900, 0x980), (0x400, 0x460), (0x1F300, 0x1F650), (0xE00, 0xE60), (0xA0, 0x100))]
    groups += [["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'M", "'lL", "'D", "'\u017f", "'R", "'v", "'L", "\u2019s"]]
    groups += [["def ", "return", "    ", "\n\n", "\r\n", "self.", "x_1", "camelCase", "HTTPServer", "iOS", "a/b", "./\n", "= ", "$", "+=", "==", "//", "/*", "*/", "->", "::", "0x1F", "3.14", "1,000", "e.g.", "don't", "I'LL", "    if x:\n", "\t\t}\n", "<|im_end|>", "</s>", "\U0001F468\u200d\U0001F469\u200d\U0001F467", "\U0001F1E9\U0001F1EA"]]
    return groups


WORDS = "the quick brown fox jumps over lazy dogs and then it said that prefix caching makes a long prompt cheap to read again because state stays in memory".split()
CODE = [
    'def mean(xs):\n    """Average."""\n    total = 0\n    for x in xs:\n        total += x  # 2 spaces\n    return total / len(xs) if xs else 0.0\n',
    "#include <stdio.h>\r\nint main(void) {\r\n\tprintf(\"%d\\n\", 0xFF);\r\n\treturn 0;\r\n}\r\n",
    '{"id": 12345, "tags": ["a", "b"], "π": 3.14159, "nested": {"k": null}}\n',
    "<div class=\"x\">It's  <b>bold</b> &amp; we'll see…</div>\n\n\n   \n",
]


def text(rng, groups):
    mode = rng.random()
    if mode < 0.15:
        parts = []
        for _ in range(rng.randint(1, 30)):
            parts.append(rng.choice(WORDS))
            parts.append(rng.choice([" "] * 8 + [", ", ". ", "  ", "\n", "'s ", "'Ll ", " 2024 ", "\n\n  ", "? "]))
        return "".join(parts)
    if mode < 0.25:
        code = rng.choice(CODE)
        a, b = sorted((rng.randint(0, len(code)), rng.randint(0, len(code))))
        return code[a:b]
    chosen = [rng.choice(groups) for _ in range(rng.randint(1, 6))]
    out = []
    for _ in range(rng.randint(1, 25)):
        group = rng.choice(chosen)
        out.append("".join(rng.choice(group) for _ in range(rng.choice((1, 1, 1, 2, 3, 7)))))
    return "".join(out)


def lines(path, rows):
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as f:
        for row in rows:
            f.write((row + "\n").encode())


def row(d):
    return json.dumps(d, ensure_ascii=False, separators=(",", ":"))


def goldens(tok, others, seed, splits, ids, prefix):
    rng, groups = random.Random(seed), alphabets()
    texts = [text(rng, groups) for _ in range(splits)]
    lines(prefix + "split.jsonl.gz", (row({"t": s} | {p: lengths(p, s) for p in PATTERNS}) for s in texts))
    texts = [text(rng, groups) for _ in range(ids)]
    lines(prefix + "ids.jsonl.gz", (row({"t": s, "ids": tok.encode(s).ids}) for s in texts))
    texts = [text(rng, groups) for _ in range(ids // 5)]
    lines(prefix + "pre.jsonl.gz", (row({"t": s} | {p: t.encode(s).ids for p, t in others.items()}) for s in texts))


def main():
    fields = GGUFReader(sys.argv[1]).fields
    tokens, merges, types = (fields["tokenizer.ggml." + k].contents() for k in ("tokens", "merges", "token_type"))
    vocab, merged = dict(zip(tokens, range(len(tokens)))), [tuple(m.split(" ")) for m in merges]
    others = {}
    for name, pattern in PATTERNS.items():
        others[name] = Tokenizer(models.BPE(vocab, merged, ignore_merges=name in WHOLE))
        others[name].pre_tokenizer = pattern
    tok = others.pop("smollm")
    if len(sys.argv) > 2:
        goldens(tok, others, 2, int(sys.argv[2]), int(sys.argv[2]), sys.argv[3])
        return
    control = types.count(3)
    assert types == [3] * control + [1] * (len(types) - control)
    lines("smollm2.txt.gz", [fields["tokenizer.ggml.pre"].contents(), str(len(tokens)), str(control)] + tokens + merges)
    write_classes("../classdata.go")
    goldens(tok, others, 1, 2000, 1500, "")


main()
