"""Goldens of the web UI's own rules: prompts, clip skip, NV noise, variation seeds."""

import json

import numpy as np
import torch

from common import DATA, save_array, save_lines
from model_goldens import compare
from webui_noise import VECTOR, ImageNoise, NvGenerator
from webui_prompts import chunks, condition, hidden_states, parse

LONG = "a yellow star, a red heart, a green circle, a blue square, " * 6
PROMPTS = [
    "", "red apple", "(red)", "((red))", "[red]", "[[red]]", "([red])", "(red:1.2)", "(red:1.2) apple",
    "a (red:1.2) apple and a [blue] star", "(a (red:1.5) apple:0.8)", "(red : 1.3 )", "(red:+1.5)",
    "(red:-0.5) apple", "(red:.5)", "(red:2.)", "(red:1.2", "(red", "[red", "((red) apple", "red)", "red]",
    "red:1.2)", "[red:1.2]", "(red:apple)", "(red:blue:1.4)", "a: b", "\\(red\\)", "\\[red\\]", "(\\(red\\):1.2)",
    "red\\", "red \\\\ apple", "a \\b c", "(red\\:1.2)", "red BREAK apple", "BREAK", "BREAK BREAK",
    " red  BREAK\n apple ", "redBREAK", "red_BREAK apple", "\u00e9BREAK apple", "red-BREAK-apple",
    "(red BREAK apple:1.5)", "(red)BREAK[apple]", "(red:0)", "( red )( apple )", "(red), (apple)",
    "(\u00e9t\u00e9:1.2), \u732b", "<|endoftext|> (red)", "(red:1.0000000001)", "(red:123456789.125)",
    "(red\u00a0:\u20031.2\u3000)", "(((((((((((red)))))))))))", LONG, "(" + LONG + ":1.2)",
    LONG + "BREAK" + LONG, "word " * 75, "word " * 76, "word " * 80 + ", " + "word " * 90,
    "word " * 73 + ", apple pie", "word " * 75 + ", apple", "word " * 54 + ", " + "word " * 25,
    "word " * 55 + ", " + "word " * 25, "word, " * 60, "word " * 75 + "BREAK apple",
]
CONDITIONS = [
    ["red apple", ""], ["(red:1.5) apple, [blue] star", "blue"], ["((a)) \\(b\\) [c:0.3] (d:0.3)", ""],
    [LONG, "blue"], ["(red BREAK blue:1.3) BREAK (green)", LONG], ["(red:-1) apple (star:0)", "(blue:1.4)"],
]


def write_prompts(models, doubles, precision):
    """PROMPTS as [text, weight] lists, as ids and weights of both models, and CONDITIONS encoded."""
    save_lines("webui_prompts.txt", PROMPTS)
    for name, model in models.items():
        entries = []
        for prompt in PROMPTS:
            ids, weights = chunks(model.tokenizer, prompt)
            entry = {"ids": ids.tolist(), "weights": weights.tolist()}
            entries.append({"pieces": parse(prompt), **entry} if name == "tiny" else entry)
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        (DATA / f"webui_prompts_{name}.json").write_text(f"[{lines}]\n", encoding="ascii")
    for index, prompts in enumerate(CONDITIONS):
        save_lines(f"webui_condition_{index}.txt", prompts)
        states = condition(models["tiny"], prompts)
        save_array(f"webui_condition_{index}_tiny", states)
        truth = condition(doubles["tiny"], prompts)
        precision[f"webui_condition_{index}_tiny"] = compare(states, truth)


def write_clip_skip(models, doubles, precision):
    """hidden_states[-2] after the final layer norm, for "red apple"."""
    for name, model in models.items():
        ids, _ = chunks(model.tokenizer, "red apple")
        states = hidden_states(model, ids, 2)
        save_array(f"{name}_text_hidden_skip_2", states)
        precision[f"{name}_text_hidden_skip_2"] = compare(states, hidden_states(doubles[name], ids, 2))


def write_webui_noise():
    """1,000 values of two seeds, several draws of one; first noises with a variation seed."""
    vector = NvGenerator(0).randn((3, 4))
    assert np.abs(vector.numpy() - np.float32(VECTOR)).max() < 1e-8, vector
    save_array("noise_nv_seed_0_3x4", vector)
    for seed in (0, 123456789012345):
        save_array(f"noise_nv_seed_{seed}_n_1000", NvGenerator(seed).randn((1000,)))
        single = NvGenerator(seed).randn((1000,), np.float32)
        save_array(f"noise_nv_seed_{seed}_n_1000_f32", single)
        generator = NvGenerator(seed)
        save_array(f"noise_nv_seed_{seed}_draws", torch.stack([generator.randn((20,)) for _ in range(4)]))
    for source in ("CPU", "NV"):
        case = dict(seed=11, subseed=22, subseed_strength=0.3, randn_source=source)
        noise = torch.stack([ImageNoise(case, i).next((4, 5, 7)) for i in range(2)])
        save_array(f"noise_variation_{source.lower()}", noise)
    same = dict(seed=11, subseed=11, subseed_strength=0.25)  # as parallel as can be: a plain mix
    save_array("noise_variation_same", ImageNoise(same, 0).next((4, 5, 7))[None])


def write_webui(models, doubles, precision):
    """Everything above."""
    write_prompts(models, doubles, precision)
    write_clip_skip(models, doubles, precision)
    write_webui_noise()
