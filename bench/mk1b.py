#!/usr/bin/env python3
"""Writes a model with random weights in the shape of Llama 3.2 1B, with another model's tokenizer, to measure speed at that size.

usage: mk1b.py Q4_0|Q4_1|Q8_0 OUT.gguf [TOKENIZER.gguf]

TOKENIZER.gguf is a model with a byte-level tokenizer of the smollm kind (default: SmolLM2-135M-Instruct.Q4_1.gguf). The embedding, which is also
the output head, is Q8_0. The same arguments give the same file.
"""
import sys

import gguf
import numpy as np

LAYERS, WIDTH, HIDDEN, HEADS, KV_HEADS, HEAD, CONTEXT = 16, 2048, 8192, 32, 8, 64, 8192


def main(quant, out, source):
    quant = getattr(gguf.GGMLQuantizationType, quant)
    fields = gguf.GGUFReader(source).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    rng = np.random.default_rng(0)
    w = gguf.GGUFWriter(out, "llama")
    w.add_name("random-1b")
    w.add_block_count(LAYERS)
    w.add_context_length(CONTEXT)
    w.add_embedding_length(WIDTH)
    w.add_feed_forward_length(HIDDEN)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_rope_dimension_count(HEAD)
    w.add_rope_freq_base(500000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(len(tokens))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(tokens)
    w.add_token_types(fields["tokenizer.ggml.token_type"].contents())
    w.add_token_merges(fields["tokenizer.ggml.merges"].contents())
    w.add_bos_token_id(fields["tokenizer.ggml.bos_token_id"].contents())
    w.add_eos_token_id(fields["tokenizer.ggml.eos_token_id"].contents())

    def matrix(name, rows, columns, t=quant):
        values = rng.standard_normal((rows, columns), dtype=np.float32) * 0.02
        w.add_tensor(name, gguf.quantize(values, t), raw_dtype=t)

    def norm(name):
        w.add_tensor(name, np.ones(WIDTH, np.float32))

    matrix("token_embd.weight", len(tokens), WIDTH, gguf.GGMLQuantizationType.Q8_0)
    norm("output_norm.weight")
    for i in range(LAYERS):
        b = f"blk.{i}."
        norm(b + "attn_norm.weight")
        norm(b + "ffn_norm.weight")
        matrix(b + "attn_q.weight", HEADS * HEAD, WIDTH)
        matrix(b + "attn_k.weight", KV_HEADS * HEAD, WIDTH)
        matrix(b + "attn_v.weight", KV_HEADS * HEAD, WIDTH)
        matrix(b + "attn_output.weight", WIDTH, HEADS * HEAD)
        matrix(b + "ffn_gate.weight", HIDDEN, WIDTH)
        matrix(b + "ffn_up.weight", HIDDEN, WIDTH)
        matrix(b + "ffn_down.weight", WIDTH, HIDDEN)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in ("Q4_0", "Q4_1", "Q8_0"):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], *(sys.argv[3:] or ["SmolLM2-135M-Instruct.Q4_1.gguf"]))
