"""Token ids of hard prompts from transformers' CLIPTokenizer, full and tiny vocabulary."""

import json

import torch

import tokenizer_prompts
from common import DATA, save_array, save_json, save_lines


def write_pipeline(tokenizer):
    """The tokenizer's own description of its stages, without vocabulary and merges."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    described["model"] = {
        key: value for key, value in described["model"].items() if key not in ("vocab", "merges")
    }
    described["truncation"] = described["padding"] = None  # state of the last call, not a property
    save_json(DATA / "tokenizer_pipeline.json", described)


def write_tokenizer(models):
    """Prompts as JSON strings, one a line; ids int32 [n,77], cut and padded to 77."""
    sets = {
        "tokenizer": (models["emoji"], tokenizer_prompts.prompts()),
        "tokenizer_tiny": (models["tiny"], tokenizer_prompts.tiny_prompts()),
    }
    for stem, (model, prompts) in sets.items():
        save_lines(f"{stem}_prompts.txt", prompts)
        save_array(f"{stem}_ids", model.token_ids(prompts).to(torch.int32))
    write_pipeline(models["emoji"].tokenizer)
