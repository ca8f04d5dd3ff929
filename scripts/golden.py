"""Makes golden values of random tiny models with PyTorch and transformers (needs torch, transformers, safetensors).

    python scripts/golden.py OUT [--seed N] [--count N] [--arch NAME]

Every folder OUT/golden/<architecture>-<seed>/ holds what Hugging Face saves, `config.transformers4.json` (the same
configuration with the keys of transformers 4), `golden.safetensors` (`input_ids` (2, T), `logits` (2, T, V), `loss`,
`grad.<parameter>`, `greedy` (1, N): the continuation of `input_ids[0, :6]`) and `golden.json`. The seed draws the
shapes, the scaling of rotary positions, windows, biases and tying. `ORIFLAMME_SHARED=OUT npx vitest run
test/shared/golden.test.ts` compares them.
"""

import argparse
import json
import pathlib
import random

import torch
import transformers
from safetensors.torch import save_file

ARCHITECTURES = ["llama", "mistral", "phi3", "qwen2", "qwen3", "gpt2"]
PROMPT = 6


def rope(rng, arch, rotated, length):
    """Rotary parameters, and the fields of the configuration that go with them."""
    theta = rng.choice([500.0, 10000.0, 1000000.0])
    kinds = ["default", "longrope"] if arch == "phi3" else ["default", "linear", "dynamic", "llama3", "yarn", "longrope"]
    kind = rng.choice(kinds)
    parameters = {"rope_theta": theta, "rope_type": kind}
    factor = rng.choice([2.0, 4.0, 5.5])
    original = rng.choice([16, 4 * length])
    if kind in ["linear", "dynamic", "llama3", "yarn"]:
        parameters["factor"] = factor
    if kind == "dynamic":
        return parameters, {"max_position_embeddings": rng.choice([length // 2 + 1, 4 * length])}
    if kind == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 2 * length}
    if kind == "yarn":
        parameters["original_max_position_embeddings"] = original
        if rng.random() < 0.3:
            parameters |= {"mscale": 0.8, "mscale_all_dim": 0.5}
        elif rng.random() < 0.5:
            parameters |= {"attention_factor": 1.3, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False}
    fields = {"max_position_embeddings": 8 * length}
    if kind == "longrope":
        draw = lambda low: [round(low + rng.random(), 3) for _ in range(rotated // 2)]
        parameters |= {"short_factor": draw(1.0), "long_factor": draw(2.0), "original_max_position_embeddings": original}
        if arch == "phi3":
            fields["original_max_position_embeddings"] = original
        else:
            parameters["factor"] = fields["max_position_embeddings"] / original
    return parameters, fields


def draw_config(rng, arch, length):
    """A configuration of the architecture, of any shape."""
    heads = rng.choice([2, 4, 6])
    head_dim = rng.choice([8, 12, 16, 32])
    vocab = rng.randrange(200, 400)
    common = {"vocab_size": vocab, "bos_token_id": 1, "eos_token_id": rng.choice([2, [2, 5]]), "pad_token_id": None}
    if arch == "gpt2":
        return transformers.GPT2Config(
            **common,
            **{"n_positions": 3 * length, "n_embd": heads * head_dim, "n_layer": rng.choice([1, 2, 3]), "n_head": heads},
            **{"n_inner": rng.choice([None, 100]), "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
            activation_function=rng.choice(["gelu_new", "gelu", "gelu_pytorch_tanh"]),
            tie_word_embeddings=rng.random() < 0.7,
        )
    layers = rng.choice([1, 2, 3])
    # Phi-3 and Qwen2 derive the width of a head.
    hidden = heads * head_dim if arch in ["phi3", "qwen2"] else heads * rng.choice([8, 10, 16, 20])
    fields = {
        **common,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([n for n in [1, 2, heads] if heads % n == 0]),
        "num_hidden_layers": layers,
        "intermediate_size": rng.choice([96, 100, 176]),
        "rms_norm_eps": rng.choice([1e-5, 1e-6]),
        "tie_word_embeddings": rng.random() < 0.5,
    }
    partial = rng.choice([1.0, 0.5, 0.75]) if arch == "phi3" and head_dim % 8 == 0 else 1.0
    parameters, more = rope(rng, arch, int(head_dim * partial), length)
    if partial != 1.0:
        parameters["partial_rotary_factor"] = partial
    fields |= {"rope_parameters": parameters, **more}
    # Not 1: transformers' cache then keeps more.
    window = rng.choice([2, 5, 9, 1000])
    if arch in ["llama", "mistral", "qwen3"]:
        fields["head_dim"] = head_dim
    if arch == "llama":
        fields |= {"attention_bias": rng.random() < 0.3, "mlp_bias": rng.random() < 0.3}
    if arch in ["mistral", "phi3"]:
        fields["sliding_window"] = rng.choice([None, window])
    if arch == "qwen3":
        fields["attention_bias"] = rng.random() < 0.3
    if arch in ["qwen2", "qwen3"] and rng.random() < 0.6:
        fields |= {"use_sliding_window": True, "sliding_window": window, "max_window_layers": rng.randrange(layers + 1)}
    return transformers.AutoConfig.for_model(arch, **fields)


def as_transformers4(fields):
    """The same configuration with the keys of transformers 4."""
    old = {key: value for key, value in fields.items() if key not in ["rope_parameters", "dtype", "layer_types"]}
    old["torch_dtype"] = "float32"
    if "rope_parameters" not in fields:
        return old
    parameters = dict(fields["rope_parameters"])
    old["rope_theta"] = parameters.pop("rope_theta")
    if "partial_rotary_factor" in parameters:
        old["partial_rotary_factor"] = parameters.pop("partial_rotary_factor")
    if "original_max_position_embeddings" in fields:
        parameters.pop("original_max_position_embeddings", None)
        parameters["type"] = parameters.pop("rope_type")
    kind = parameters.get("rope_type", parameters.get("type"))
    old["rope_scaling"] = None if kind == "default" else parameters
    return old


def make(out, arch, seed):
    rng = random.Random(f"{arch} {seed}")
    torch.manual_seed(seed)
    length = rng.randrange(20, 40)
    config = draw_config(rng, arch, length)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
            else:
                # Norms stand around 1 and biases around 0, as they were initialised.
                parameter.add_(0.2 * torch.randn_like(parameter))
    ids = torch.randint(3, config.vocab_size, (2, length))
    result = model(ids, labels=ids, use_cache=False)
    result.loss.backward()
    rope_parameters = getattr(config, "rope_parameters", None) or {}
    original = rope_parameters.get("original_max_position_embeddings", 0)
    # transformers' Phi-3 loses its context where the factors change.
    most = 8 if rope_parameters.get("rope_type") == "longrope" and original == 16 else 14
    greedy = model.generate(
        ids[:1, :PROMPT], do_sample=False, max_new_tokens=most, eos_token_id=None, pad_token_id=0
    )
    folder = pathlib.Path(out) / "golden" / f"{arch}-{seed}"
    model.save_pretrained(folder)
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.transformers4.json").write_text(json.dumps(as_transformers4(fields), indent=1))
    tensors = {"input_ids": ids, "logits": result.logits.detach(), "loss": result.loss.detach(), "greedy": greedy}
    for name, parameter in model.named_parameters():
        tensors[f"grad.{name}"] = parameter.grad
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "golden.safetensors")
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    facts = {"loss": result.loss.item(), "greedy": greedy[0].tolist(), "arch": arch, "made_with": versions}
    (folder / "golden.json").write_text(json.dumps(facts, indent=1))
    print(folder, json.dumps(rope_parameters.get("rope_type")), length)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--arch", choices=ARCHITECTURES)
    options = parser.parse_args()
    for seed in range(options.seed, options.seed + options.count):
        for arch in [options.arch] if options.arch else ARCHITECTURES:
            make(options.out, arch, seed)


if __name__ == "__main__":
    main()
