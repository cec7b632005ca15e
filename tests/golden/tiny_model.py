"""A tiny random model with the layout of a Stable Diffusion 1.x diffusers folder, in odd sizes.

Odd head counts and head sizes, three UNet levels, four VAE levels, exact GELU instead of quick
GELU, and one storage type per part (text encoder bfloat16, UNet float16, VAE float32): what the
emoji model does not cover. The weights are random; the pictures mean nothing.
"""

import json
import math

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from common import EMOJI, TINY, save_json, seeded

VOCAB_SIZE = 1024
START, END = "<|startoftext|>", "<|endoftext|>"

UNET_CONFIG = dict(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    block_out_channels=(20, 36, 52),
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=2,
    attention_head_dim=[2, 3, 4],  # the number of heads per level: SD 1.x's misnomer
    cross_attention_dim=24,
    norm_num_groups=4,
)

VAE_CONFIG = dict(
    sample_size=64,
    block_out_channels=(12, 20, 28, 28),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    latent_channels=4,
    layers_per_block=1,
    norm_num_groups=4,
    scaling_factor=0.2,
)

TEXT_CONFIG = dict(
    vocab_size=VOCAB_SIZE,
    hidden_size=24,
    intermediate_size=60,
    num_hidden_layers=2,
    num_attention_heads=3,
    max_position_embeddings=77,
    hidden_act="gelu",
    projection_dim=24,
    bos_token_id=VOCAB_SIZE - 2,
    eos_token_id=VOCAB_SIZE - 1,
    pad_token_id=VOCAB_SIZE - 1,
)


def randomise(model, seed):
    """Fill every weight such that activations stay near unit size and no norm is the identity."""
    for index, (name, weight) in enumerate(sorted(model.named_parameters())):
        noise = torch.randn(weight.shape, generator=seeded(seed + index))
        if "embedding" in name and weight.ndim == 2 and "time_embedding" not in name:
            weight.copy_(0.5 * noise)
        elif weight.ndim >= 2:
            weight.copy_(noise / math.sqrt(weight[0].numel()))
        elif name.endswith("weight"):
            weight.copy_(1 + 0.2 * noise)
        else:
            weight.copy_(0.1 * noise)


def write_tokenizer(folder):
    """The first 510 merges of CLIP's list: 256 bytes, 256 bytes that end a word, 510 merges."""
    folder.mkdir(parents=True)
    source = EMOJI / "tokenizer"
    ids = json.loads((source / "vocab.json").read_text(encoding="utf-8"))
    tokens = sorted(ids, key=ids.get)[: VOCAB_SIZE - 2] + [START, END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    text = json.dumps(vocabulary, ensure_ascii=False, indent=0)
    (folder / "vocab.json").write_text(text + "\n", encoding="utf-8")

    lines = (source / "merges.txt").read_text(encoding="utf-8").split("\n")
    header, merges = lines[0], lines[1 : 1 + VOCAB_SIZE - 2 - 512]
    assert all(pair.replace(" ", "") in vocabulary for pair in merges)
    (folder / "merges.txt").write_text("\n".join([header, *merges]) + "\n", encoding="utf-8")

    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    save_json(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    save_json(folder / "tokenizer_config.json", {**special, **settings})


def write_text_encoder(folder):
    """bfloat16 weights under SD 1.x's names, which carry the prefix `text_model.`."""
    model = CLIPTextModel(CLIPTextConfig(**TEXT_CONFIG))
    randomise(model, 1000)
    model.to(torch.bfloat16).save_pretrained(folder)

    weights = folder / "model.safetensors"
    named = {
        name if name.startswith("text_model.") else "text_model." + name: tensor
        for name, tensor in load_file(weights).items()
    }
    save_file(named, weights, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = config["torch_dtype"] = "float32"  # else the pipeline computes in bfloat16
    save_json(folder / "config.json", config)


def write_index(folder):
    """The scheduler and the list of parts, as in the emoji model."""
    save_json(folder / "model_index.json", json.loads((EMOJI / "model_index.json").read_text()))
    (folder / "scheduler").mkdir()
    config = json.loads((EMOJI / "scheduler" / "scheduler_config.json").read_text())
    save_json(folder / "scheduler" / "scheduler_config.json", config)


def share_weights():
    """safetensors writes files that only their owner may read; a checkout's are readable to all."""
    for path in TINY.rglob("*.safetensors"):
        path.chmod(0o644)


def write_tiny_model():
    """Write data/tiny."""
    write_tokenizer(TINY / "tokenizer")
    write_text_encoder(TINY / "text_encoder")
    unet = UNet2DConditionModel(**UNET_CONFIG)
    randomise(unet, 2000)
    unet.to(torch.float16).save_pretrained(TINY / "unet")
    vae = AutoencoderKL(**VAE_CONFIG)
    randomise(vae, 3000)
    vae.save_pretrained(TINY / "vae")
    write_index(TINY)
    share_weights()
