#!/usr/bin/env python3
"""Makes the models that TestReference compares with: NAME.gguf.gz, random weights in float32, and NAME.json, logits by transformers in float32.

usage: make.py [NAME ...]     (in this folder; needs torch, transformers, gguf; without names all are made)

Each family has the options of real files, in sizes that keep the files small: weights are multiples of a power of two, so that they compress.
"""
import gzip, json, math, pathlib, sys, zlib

import gguf, numpy as np, torch, transformers as tf

LENGTH, VOCAB, CONTEXT = 320, 96, 512
SHOWN = [0, 1, 2, 17, 31, 32, 47, 48, 63, 64, 100, 127, 160, 200, 255, 256, 257, 300, 319]

common = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
              max_position_embeddings=CONTEXT, rms_norm_eps=1e-6, tie_word_embeddings=False, attn_implementation="eager", dtype=torch.float32)


def config(cls, **change):
    return cls(**{**common, **change})


def rope(kind="default", theta=10000.0, **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


LONG = dict(short_factor=[1.0 + i / 8 for i in range(6)], long_factor=[1.5 + i for i in range(6)])
MODELS = {
    "llama": lambda: config(tf.LlamaConfig, rope_parameters=rope("llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                                 original_max_position_embeddings=128)),
    "mistral": lambda: config(tf.MistralConfig, head_dim=32, num_key_value_heads=1, sliding_window=None, rope_parameters=rope(theta=1e6)),
    "mistral3": lambda: config(tf.Ministral3Config, head_dim=32, sliding_window=None, rope_parameters=rope("yarn", 1e6, factor=4.0, beta_fast=32.0, beta_slow=1.0,
                               mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3, original_max_position_embeddings=128)),
    "qwen2": lambda: config(tf.Qwen2Config, tie_word_embeddings=True, rope_parameters=rope(theta=1e6)),
    "qwen2-yarn": lambda: config(tf.Qwen2Config, head_dim=32, rope_parameters=rope("yarn", 1e6, factor=4.0, original_max_position_embeddings=128)),
    "qwen3": lambda: config(tf.Qwen3Config, head_dim=32, rope_parameters=rope(theta=1e6)),
    "qwen3moe": lambda: config(tf.Qwen3MoeConfig, head_dim=32, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=32, norm_topk_prob=True,
                               decoder_sparse_step=1, mlp_only_layers=[], rope_parameters=rope(theta=1e6)),
    # Every third layer sees all; the file gives the number. The first layers' rotary embedding is not scaled.
    "gemma3": lambda: config(tf.Gemma3TextConfig, num_hidden_layers=4, head_dim=32, num_key_value_heads=1, query_pre_attn_scalar=32, sliding_window=48,
                             layer_types=["full_attention" if i % 3 == 2 else "sliding_attention" for i in range(4)], tie_word_embeddings=True,
                             rope_parameters=dict(full_attention=rope("linear", 1e6, factor=8.0), sliding_attention=rope())),
    # The file lists the layers; the window is longer than a split of attention.
    "gemma3-list": lambda: config(tf.Gemma3TextConfig, num_hidden_layers=3, head_dim=64, query_pre_attn_scalar=64, sliding_window=260,
                                  layer_types=["full_attention", "sliding_attention", "sliding_attention"], tie_word_embeddings=True,
                                  rope_parameters=dict(full_attention=rope(theta=1e6), sliding_attention=rope())),
    "phi3": lambda: config(tf.Phi3Config, sliding_window=100, pad_token_id=0, original_max_position_embeddings=256,
                           rope_parameters=rope("longrope", original_max_position_embeddings=256, partial_rotary_factor=0.75, **LONG)),
}
ARCH = {"mistral": "llama", "qwen2-yarn": "qwen2", "gemma3-list": "gemma3"}


def randomise(model, rng):
    """Sets every weight; logits vary with everything before them."""
    for name, p in model.named_parameters():
        shape = tuple(p.shape)
        if "norm" in name:
            w = rng.integers(-6, 7, shape) / 16 + (0 if "gemma" in model.config.model_type else 1)
        elif name.endswith("bias"):
            w = rng.integers(-8, 9, shape) / 16
        else:
            # Attention prefers some tokens, but not so much that the rounding of K to f16 is what is measured.
            gain = 1.4 if any(x in name for x in ("q_proj", "k_proj", "qkv_proj")) else 2.0 if "_proj" in name else 1.0
            sigma = gain / math.sqrt(shape[-1])
            step = 2.0 ** round(math.log2(sigma / 3))
            w = np.round(rng.normal(0, sigma / step, shape)) * step
        p.data = torch.tensor(w, dtype=torch.float32)


NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
}
GEMMA = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}


def tensors(model, arch):
    """Yields (GGUF name, values)."""
    c = model.config
    for name, p in model.named_parameters():
        w, (part, kind) = p.detach().numpy(), name.rsplit(".", 1)
        if arch == "gemma3" and "norm" in name:
            w = w + np.float32(1)  # transformers multiplies by 1 + w
        if part in ("model.embed_tokens", "model.norm", "lm_head"):
            yield {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}[part] + ".weight", w
            continue
        if part == "model.layers" or ".experts" in name:  # expert weights: [expert][gate, up][width] and [expert][width]
            layer = name.split(".")[2]
            if kind == "gate_up_proj":
                half = w.shape[1] // 2
                yield f"blk.{layer}.ffn_gate_exps.weight", np.ascontiguousarray(w[:, :half])
                yield f"blk.{layer}.ffn_up_exps.weight", np.ascontiguousarray(w[:, half:])
            else:
                yield f"blk.{layer}.ffn_down_exps.weight", w
            continue
        _, _, layer, part = part.split(".", 3)
        if arch in ("llama", "mistral3") and part in ("self_attn.q_proj", "self_attn.k_proj"):  # pairs side by side
            heads = c.num_attention_heads if "q_proj" in part else c.num_key_value_heads
            w = w.reshape(heads, 2, -1, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)
        yield f"blk.{layer}.{(GEMMA if arch == 'gemma3' and part in GEMMA else NAMES)[part]}.{kind}", w


def metadata(w, c, arch, name):
    key = lambda k: f"{arch}.{k}"
    num, real = (lambda k, v: w.add_uint32(key(k), v)), (lambda k, v: w.add_float32(key(k), v))
    head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    num("block_count", c.num_hidden_layers)
    num("context_length", c.max_position_embeddings)
    num("embedding_length", c.hidden_size)
    num("feed_forward_length", c.intermediate_size)
    num("attention.head_count", c.num_attention_heads)
    num("attention.head_count_kv", c.num_key_value_heads)
    if head != c.hidden_size // c.num_attention_heads:
        num("attention.key_length", head)
        num("attention.value_length", head)
    real("attention.layer_norm_rms_epsilon", c.rms_norm_eps)
    r = c.rope_parameters.get("full_attention", c.rope_parameters)
    real("rope.freq_base", r["rope_theta"])
    if r["rope_type"] in ("linear", "yarn"):
        w.add_string(key("rope.scaling.type"), r["rope_type"])
        real("rope.scaling.factor", r["factor"])
    if arch == "mistral3":
        real("rope.scaling.yarn_log_multiplier", r["mscale_all_dim"])
        real("attention.temperature_scale", r["llama_4_scaling_beta"])
    if "original_max_position_embeddings" in r and r["rope_type"] != "llama3":
        num("rope.scaling.original_context_length", r["original_max_position_embeddings"])
    if arch == "gemma3":
        num("attention.sliding_window", c.sliding_window)
        if name == "gemma3-list":
            w.add_array(key("attention.sliding_window_pattern"), [t == "sliding_attention" for t in c.layer_types])
        else:
            num("attention.sliding_window_pattern", 3)
    if arch == "qwen3moe":
        num("expert_count", c.num_experts)
        num("expert_used_count", c.num_experts_per_tok)
        num("expert_feed_forward_length", c.moe_intermediate_size)
    if arch == "phi3":
        num("attention.sliding_window", c.sliding_window)
        num("rope.dimension_count", int(head * r["partial_rotary_factor"]))
        scale = c.max_position_embeddings / r["original_max_position_embeddings"]
        real("rope.scaling.attn_factor", math.sqrt(1 + math.log(scale) / math.log(r["original_max_position_embeddings"])))
        w.add_tensor("rope_factors_short.weight", np.array(r["short_factor"], np.float32))
        w.add_tensor("rope_factors_long.weight", np.array(r["long_factor"], np.float32))
    if r["rope_type"] == "llama3":  # what the frequencies are divided by
        factors = []
        for i in range(head // 2):
            turns = r["original_max_position_embeddings"] * r["rope_theta"] ** (-2 * i / head) / (2 * math.pi)
            mix = min(1.0, max(0.0, (turns - r["low_freq_factor"]) / (r["high_freq_factor"] - r["low_freq_factor"])))
            factors.append(1 / ((1 - mix) / r["factor"] + mix))
        w.add_tensor("rope_freqs.weight", np.array(factors, np.float32))


def make(name):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    c, arch = MODELS[name](), ARCH.get(name, name)
    model = tf.AutoModelForCausalLM.from_config(c, dtype=torch.float32, attn_implementation="eager").eval()
    randomise(model, rng)
    ids = rng.integers(0, VOCAB, LENGTH).tolist()
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    w = gguf.GGUFWriter(None, arch)
    w.add_name(f"random {name}")
    metadata(w, c, arch, name)
    for tensor, values in tensors(model, arch):
        w.add_tensor(tensor, values)
    path = pathlib.Path(name + ".gguf")
    w.write_header_to_file(path)
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    with open(name + ".gguf.gz", "wb") as f, gzip.GzipFile("", "wb", 9, f, 0) as z:
        z.write(path.read_bytes())
    path.unlink()
    rows = {p: [float(f"{x:.6g}") for x in logits[p]] for p in SHOWN}
    pathlib.Path(name + ".json").write_text(json.dumps(dict(ids=ids, logits=rows), separators=(",", ":")) + "\n")
    print(f"{name}: deviation of logits {logits.std():.2f}, transformers {tf.__version__}")


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        make(name)
