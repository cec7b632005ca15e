"""One call of each network: text encoder, UNet, VAE decoder, for the emoji and the tiny model.

All weights are raised to float32 and all sums run in float32. Each call is repeated in double, and
precision.json keeps the distance, so that a test's tolerance can stand on a measured number.
"""

import math
from unittest import mock

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models import embeddings
from transformers import CLIPTextModel, CLIPTokenizer

from common import MODELS, save_array, save_lines, seeded

PROMPTS = [
    "",
    "red apple",
    "blue",
    "a smiling face with sunglasses, on a blue background!",
    "a yellow star and a red heart and a green circle, " * 12,  # cut at 77 tokens
]

UNET_SIZES = {"emoji": [(16, 16), (13, 17)], "tiny": [(8, 12), (9, 7)]}
VAE_SIZES = {"emoji": [(16, 16)], "tiny": [(5, 7), (8, 8)]}
TIMESTEPS = [801.372, 0.25]


class Model:
    """The parts of one diffusers folder, in the precision asked for."""

    def __init__(self, name, dtype=torch.float32):
        folder = MODELS[name]
        self.name, self.dtype = name, dtype
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        kinds = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel, "vae": AutoencoderKL}
        for part, kind in kinds.items():
            loaded = kind.from_pretrained(folder / part, dtype=torch.float32)
            assert all(weight.dtype == torch.float32 for weight in loaded.parameters())
            setattr(self, part, loaded.eval().to(dtype))

    def token_ids(self, prompts):
        """int64 [n,77]: start token, the prompt's tokens, end token, padding (the end token)."""
        padded = dict(padding="max_length", truncation=True, max_length=77, return_tensors="pt")
        return self.tokenizer(list(prompts), **padded).input_ids

    def encode(self, prompts):
        """last_hidden_state [n,77,hidden]: after the final layer norm; causal mask, no other."""
        return self.text_encoder(self.token_ids(prompts)).last_hidden_state

    def predict_noise(self, sample, timesteps, context):
        """The UNet; TIMESTEPS is a float tensor with one, possibly fractional, entry per sample."""
        return self.unet(sample, timesteps, encoder_hidden_states=context).sample

    def decode(self, scaled_latents):
        """The VAE's decoder; its input is already divided by scaling_factor. Not clamped."""
        return self.vae.decode(scaled_latents).sample


def double_timestep_embedding(timesteps, embedding_dim, flip_sin_to_cos=False,
                              downscale_freq_shift=1, scale=1, max_period=10000):
    """diffusers' sinusoidal embedding, with the angles in double instead of float32."""
    half = embedding_dim // 2
    exponents = torch.arange(half, dtype=torch.float64) / (half - downscale_freq_shift)
    angles = scale * timesteps[:, None].double() * torch.exp(-math.log(max_period) * exponents)
    parts = [angles.cos(), angles.sin()] if flip_sin_to_cos else [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=-1)


def double_embedding():
    """A context in which the UNet's time embedding is computed in double."""
    return mock.patch.object(embeddings, "get_timestep_embedding", double_timestep_embedding)


def compare(single, double):
    """How far the float32 result is from the double one, beside how large it is."""
    difference = (single.double() - double.double()).abs().max().item()
    shown = {"max_abs_difference": difference, "max_abs_value": double.abs().max().item(),
             "std": double.double().std().item()}
    return {key: float(f"{value:.3g}") for key, value in shown.items()}


def write_text_encoder(model, double, precision):
    """ids [5,77] int32 and last_hidden_state [5,77,hidden] float32 for PROMPTS."""
    save_array(f"{model.name}_text_ids", model.token_ids(PROMPTS).to(torch.int32))
    hidden = model.encode(PROMPTS)
    save_array(f"{model.name}_text_hidden", hidden)
    precision[f"{model.name}_text_hidden"] = compare(hidden, double.encode(PROMPTS))


def write_unet(model, double, precision):
    """For each size: sample, timesteps, context ("red apple", "") and the predicted noise."""
    timesteps, context = torch.tensor(TIMESTEPS), model.encode(["red apple", ""])
    save_array(f"{model.name}_unet_timesteps", timesteps)
    save_array(f"{model.name}_unet_context", context)
    for height, width in UNET_SIZES[model.name]:
        stem = f"{model.name}_unet_{height}x{width}"
        sample = torch.randn(2, 4, height, width, generator=seeded(height * width))
        out = model.predict_noise(sample, timesteps, context)
        save_array(f"{stem}_sample", sample)
        save_array(f"{stem}_out", out)
        with double_embedding():
            truth = double.predict_noise(sample.double(), timesteps, context.double())
        precision[f"{stem}_out"] = compare(out, truth)


def write_vae(model, double, precision):
    """For each size: latents already divided by the scaling factor, and the decoded picture."""
    factor = model.vae.config.scaling_factor
    for height, width in VAE_SIZES[model.name]:
        stem = f"{model.name}_vae_{height}x{width}"
        latents = torch.randn(1, 4, height, width, generator=seeded(height + width)) / factor
        out = model.decode(latents)
        save_array(f"{stem}_scaled_latents", latents)
        save_array(f"{stem}_out", out)
        precision[f"{stem}_out"] = compare(out, double.decode(latents.double()))


def write_model_calls(models, doubles, precision):
    """Everything above, for every model."""
    save_lines("text_prompts.txt", PROMPTS)
    for name, model in models.items():
        write_text_encoder(model, doubles[name], precision)
        write_unet(model, doubles[name], precision)
        write_vae(model, doubles[name], precision)
