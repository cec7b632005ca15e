"""The VAE, from nothing: only for other pictures than the model's VAE was made for, which serves as it is. Writes
checkpoint-vae.pt as `train` writes its own, and at the end vae/, a folder for `latents --vae` and `export --vae`.
Kingma & Welling 2014 with a fixed noise in the place of a learned variance, so that the decoder forgives what the UNet
gets wrong; no perceptual and no adversarial loss. The latents are made white at the end (mean 0, covariance 1 over the
training pictures), by its first and last 1 x 1 convolutions."""
import argparse
import math

import diffusers
import numpy as np
import torch

import data
import loop
import pictures
import places
from vocabulary import BACKGROUNDS

CHECKPOINT, FOLDER = "checkpoint-vae.pt", "vae"
RATES, DECAY_FROM = (0.024, 2.4e-3), 0.35
LATENT_NOISE = 0.10  # of the latents' standard deviation
CROP, CROPS_UNTIL = 64, 0.75  # pixels; share of the training with crops, whole pictures after it
POSTERIOR = 0.05  # the standard deviation that the finished encoder states
SHOWN = ("loss", "mean error of a channel (of 2)")


def random_pictures(drawn, rng, size, side):
    """Float32 [size, 3, side, side] in -1..1: crops near the middle or shifted pictures, mirrored and with channels
    exchanged at random, mostly on white."""
    colours = list(BACKGROUNDS.values())
    batch = np.empty((size, side, side, 3), np.float32)
    for i in range(size):
        picture = drawn[rng.integers(len(drawn))].astype(np.float32)
        if side < pictures.SIZE:
            room = pictures.SIZE - side
            y, x = rng.normal(room / 2, 22, 2).round().clip(0, room).astype(int)
            picture = picture[y:y + side, x:x + side]
        else:
            picture = np.roll(picture, tuple(rng.integers(-4, 5, 2)), (0, 1))
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        rgb = picture[..., rng.permutation(3)] if rng.random() < 0.3 else picture[..., :3]
        kind = rng.random()
        background = (colours[0] if kind < 0.6 else colours[rng.integers(len(colours))] if kind < 0.9
                      else 255 * rng.random(3))
        alpha = picture[..., 3:] / 255
        batch[i] = rgb * alpha + np.asarray(background, np.float32) * (1 - alpha)
    return torch.from_numpy(pictures.channels_first(batch))


def slopes(x):
    """The mean difference of neighbours, down and across."""
    return (x[..., 1:, :] - x[..., :-1, :]).abs().mean() + (x[..., 1:] - x[..., :-1]).abs().mean()


class Autoencoder(loop.Training):
    def __init__(self, options, group):
        torch.manual_seed(options.seed)
        net = diffusers.AutoencoderKL.from_config(diffusers.AutoencoderKL.load_config(options.model, subfolder="vae"))
        net = net.to(memory_format=torch.channels_last)
        ends = ("conv_in", "quant_conv", "decoder.conv_out")
        matrices = [p for n, p in net.named_parameters() if p.ndim >= 2 and not any(e in n for e in ends)]
        super().__init__(net, group, options, matrices, RATES, DECAY_FROM)
        self.drawn = data.load()[1]

    def describe(self):
        return f"{len(self.drawn)} emoji"

    def loss(self, rng, size):
        """The loss of one batch and the mean error of a channel."""
        whole = self.step > CROPS_UNTIL * self.steps
        batch = random_pictures(self.drawn, rng, max(1, size // 3) if whole else size,
                                pictures.SIZE if whole else CROP)
        batch = batch.contiguous(memory_format=torch.channels_last)
        mean = self.net.quant_conv(self.net.encoder(batch))[:, :4]
        spread = mean.std((0, 2, 3), keepdim=True)
        noise = torch.from_numpy(rng.standard_normal(mean.shape, np.float32))
        latents = mean + LATENT_NOISE * spread.detach() * noise
        error = self.net.decoder(self.net.post_quant_conv(latents)) - batch
        half = torch.nn.functional.avg_pool2d(error, 2)
        quarter = torch.nn.functional.avg_pool2d(half, 2)
        loss = (error.abs().mean() + 0.5 * half.abs().mean() + 0.5 * quarter.abs().mean() + 0.7 * slopes(error)
                + 0.5 * slopes(half) + 1e-2 * (spread - 1).pow(2).mean() + 1e-3 * mean.mean((0, 2, 3)).pow(2).mean())
        return loss, [error.detach().abs().mean().item()]

    def run(self, path, shown):
        super().run(path, shown)
        if self.group.rank == 0:
            with torch.no_grad():
                loop.set_parameters(self.net, self.mean)
                whiten(self.net.eval(), self.drawn)
            folder = places.work(FOLDER)
            self.net.half().save_pretrained(folder)
            print(f"wrote {folder}")


def whiten(net, drawn):
    """Change the 1 x 1 convolutions beside the latents so that these are white over the plain pictures and that
    scaling_factor times them has the variance 1; the decoded pictures stay."""
    plain = torch.from_numpy(pictures.channels_first(np.stack([pictures.over(p, "white") for p in drawn])))
    means = torch.cat([net.quant_conv(net.encoder(x))[:, :4] for x in plain.split(16)])
    flat = means.permute(1, 0, 2, 3).reshape(4, -1).double()
    middle = flat.mean(1)
    values, vectors = torch.linalg.eigh((flat - middle[:, None]) @ (flat - middle[:, None]).T / flat.size(1))
    white = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    size = 1 / net.config.scaling_factor
    first, last = net.quant_conv, net.post_quant_conv
    weight, bias = first.weight[:4, :, 0, 0].double(), first.bias[:4].double()
    first.weight.zero_()
    first.weight[:4, :, 0, 0] = (size * white @ weight).float()
    first.bias[:4] = (size * white @ (bias - middle)).float()
    first.bias[4:] = 2 * math.log(POSTERIOR * size)
    weight, bias = last.weight[..., 0, 0].double(), last.bias.double()
    last.weight[..., 0, 0] = (weight @ torch.linalg.inv(white) / size).float()
    last.bias.copy_((weight @ middle + bias).float())


def main(arguments):
    parser = argparse.ArgumentParser(prog="run.py vae", description=__doc__)
    parser.add_argument("--model", default=places.MODEL, help="whose vae/config.json to follow; default: %(default)s")
    parser.add_argument("--samples", type=places.positive, default=50000, help="how long in all; default: %(default)s")
    loop.stage("vae", arguments, Autoencoder, CHECKPOINT, SHOWN, parser, batch=16, needs={"variants.json": "data"})
