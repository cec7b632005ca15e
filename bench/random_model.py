"""A full-size Stable Diffusion 1.5 with seeded random weights, as a diffusers folder in float16: random_model.py FOLDER"""
import json
import math
import os
import shutil
import sys

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

import common

EMOJI = os.path.join(common.ROOT, "models", "emoji")
UNET = dict(sample_size=64, in_channels=4, out_channels=4, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2,
            cross_attention_dim=768, attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3)
VAE = dict(sample_size=512, block_out_channels=(128, 256, 512, 512), latent_channels=4, layers_per_block=2,
           down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
TEXT = dict(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768, bos_token_id=49406, eos_token_id=49407)


def randomise(model, seed):
    """Weights by their fan-in and norms about 1: activations stay near unit size, and no layer's output vanishes."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        weight.normal_(generator=generator)
        if weight.ndim >= 2:
            weight.mul_(0.5 if "position_embedding" in name or "token_embedding" in name
                        else 1 / math.sqrt(weight[0].numel()))
        else:
            weight.mul_(0.1).add_(1.0 if name.endswith("weight") else 0.0)


def name_as_published(file):
    """Stable Diffusion 1.5's text encoder has the prefix `text_model.`, which newer transformers leave out."""
    weights = load_file(file)
    named = {name if name.startswith("text_model.") else f"text_model.{name}": weight for name, weight in weights.items()}
    save_file(named, file, metadata={"format": "pt"})


def write_model(folder):
    torch.set_grad_enabled(False)
    for part in ("tokenizer", "scheduler"):  # CLIP's vocabulary, Stable Diffusion 1.x's noise levels
        shutil.copytree(os.path.join(EMOJI, part), os.path.join(folder, part))
    shutil.copy(os.path.join(EMOJI, "model_index.json"), folder)
    makers = {"unet": lambda: UNet2DConditionModel(**UNET), "vae": lambda: AutoencoderKL(**VAE),
              "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**TEXT))}
    for seed, (part, make) in enumerate(makers.items()):
        model = make()
        randomise(model, seed)
        model.half().save_pretrained(os.path.join(folder, part))
    name_as_published(os.path.join(folder, "text_encoder", "model.safetensors"))


write_model(sys.argv[1])
print(json.dumps({"folder": sys.argv[1]}))
