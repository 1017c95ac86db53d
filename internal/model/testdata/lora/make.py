#!/usr/bin/env python3
"""Makes adapters for the models that ../make.py makes, and logits with them by transformers in float32, the adapters computed unmerged.

usage: make.py [NAME ...]     (in this folder; needs torch, transformers, gguf, safetensors; without names all are made)

NAME.gguf.gz has llama.cpp's form, NAME.safetensors.gz and NAME.config.json PEFT's; NAME.json has ids and logits.
"""
import gzip, json, math, pathlib, sys, zlib

import gguf, numpy as np, torch
from safetensors.torch import save

sys.path.insert(0, "..")
import make as base

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj"]
# rank, alpha, alpha/√rank in place of alpha/rank, modules
ADAPTERS = {
    "llama": (4, 8, False, ALL + ["lm_head"]),
    "mistral3": (3, 2, True, ["q_proj", "k_proj"]),
    "gemma3": (8, 8, False, ALL),
    "phi3": (5, 10, False, ALL),
    "qwen3moe": (4, 8, False, ["q_proj", "k_proj", "v_proj", "o_proj"]),
}


def zip_to(path, data):
    with open(path, "wb") as f, gzip.GzipFile("", "wb", 9, f, 0) as z:
        z.write(data)


def low_rank(rng, rows, cols, sigma):
    step = 2.0 ** round(math.log2(sigma / 3))
    return torch.tensor(np.round(rng.normal(0, sigma / step, (rows, cols))) * step, dtype=torch.float32)


def make(name):
    rank, alpha, rs, targets = ADAPTERS[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    c, arch = base.MODELS[name](), base.ARCH.get(name, name)
    model = base.tf.AutoModelForCausalLM.from_config(c, dtype=torch.float32, attn_implementation="eager").eval()
    base.randomise(model, rng)
    scale = alpha / (math.sqrt(rank) if rs else rank)
    out, w = {}, gguf.GGUFWriter(None, arch)
    w.add_type("adapter")
    w.add_string("adapter.type", "lora")
    w.add_float32("adapter.lora.alpha", scale * rank)  # the form knows alpha/rank only
    for path, m in model.named_modules():
        if path.rsplit(".", 1)[-1] not in targets or not isinstance(m, torch.nn.Linear):
            continue
        a, b = low_rank(rng, rank, m.in_features, 1 / math.sqrt(m.in_features)), low_rank(rng, m.out_features, rank, 0.7 / math.sqrt(rank))
        m.register_forward_hook(lambda m, x, y, a=a, b=b: y + (x[0] @ a.T) @ b.T * scale)
        out[f"base_model.model.{path}.lora_A.weight"], out[f"base_model.model.{path}.lora_B.weight"] = a.half(), b.half()
        assert (a.half().float() == a).all() and (b.half().float() == b).all()
        if path == "lm_head":
            tensor = "output.weight"
        else:
            _, _, layer, part = path.split(".", 3)
            tensor = f"blk.{layer}.{base.NAMES[part]}.weight"
            if arch in ("llama", "mistral3") and part in ("self_attn.q_proj", "self_attn.k_proj"):
                heads = c.num_attention_heads if "q_proj" in part else c.num_key_value_heads
                b = b.reshape(heads, 2, -1, rank).swapaxes(1, 2).reshape(b.shape)
        w.add_tensor(tensor + ".lora_a", a.numpy())
        w.add_tensor(tensor + ".lora_b", np.ascontiguousarray(b.numpy()))
    ids = rng.integers(0, base.VOCAB, base.LENGTH).tolist()
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    path = pathlib.Path(name + ".gguf")
    w.write_header_to_file(path)
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    zip_to(name + ".gguf.gz", path.read_bytes())
    path.unlink()
    zip_to(name + ".safetensors.gz", save(out, {"format": "pt"}))
    config = dict(peft_type="LORA", task_type="CAUSAL_LM", base_model_name_or_path=name, r=rank, lora_alpha=alpha, use_rslora=rs, use_dora=False, bias="none",
                  target_modules=targets, fan_in_fan_out=False, init_lora_weights=True, modules_to_save=None, lora_dropout=0.0, rank_pattern={}, alpha_pattern={})
    pathlib.Path(name + ".config.json").write_text(json.dumps(config) + "\n")
    rows = {p: [float(f"{x:.6g}") for x in logits[p]] for p in base.SHOWN}
    pathlib.Path(name + ".json").write_text(json.dumps(dict(ids=ids, logits=rows), separators=(",", ":")) + "\n")
    print(f"{name}: {len(out) // 2} pairs, deviation of logits {logits.std():.2f}, transformers {base.tf.__version__}")


for name in sys.argv[1:] or ADAPTERS:
    make(name)
