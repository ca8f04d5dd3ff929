"""What transformers and PEFT make of folders that oriflamme wrote: a line of JSON for each job of ecosystem.test.ts."""

import json
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def difference(model, job):
    """The largest difference to the logits that oriflamme computed."""
    expected = load_file(job["logits"])["logits"]
    with torch.no_grad():
        found = model(torch.tensor([job["ids"]])).logits[0]
    return {"difference": (found - expected).abs().max().item(), "shape": list(found.shape)}


def model(job):
    return difference(load(job["folder"]), job)


def adapter(job):
    base = load(job["base"])
    if job["vocabSize"] != base.config.vocab_size:
        base.resize_token_embeddings(job["vocabSize"], mean_resizing=False)
    return difference(PeftModel.from_pretrained(base, job["folder"]).eval(), job)


def tokenizer(job):
    tokenizer = AutoTokenizer.from_pretrained(job["folder"])
    return {
        "tokens": [tokenizer.convert_tokens_to_ids(token) for token in job["tokens"]],
        "texts": [tokenizer.encode(text, add_special_tokens=False) for text in job["texts"]],
        "skipped": tokenizer.decode(tokenizer.encode("".join(job["tokens"])), skip_special_tokens=True),
        "special": [token in tokenizer.all_special_tokens for token in job["tokens"]],
    }


def chat(job):
    tokenizer = AutoTokenizer.from_pretrained(job["folder"])
    return {
        "ids": [
            tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
            for messages in job["conversations"]
        ]
    }


KINDS = {"model": model, "adapter": adapter, "tokenizer": tokenizer, "chat": chat}

for job in json.load(open(sys.argv[1])):
    print(json.dumps(KINDS[job["kind"]](job)))
