"""Train the text encoder and the UNet together to predict the noise (Ho et al. 2020), from the model's
weights. Writes checkpoint.pt every few minutes and at the end, at SIGINT and at SIGTERM too, and goes on from it when
started again. One process for each CPU that this one may use; anything else that runs beside it slows all of them."""
import argparse

import numpy as np
import torch

import captions
import data
import loop
import network
import pictures
import places
import vocabulary

CHECKPOINT = "checkpoint.pt"
WEIGHTS = {"plain": 1.0, "background": 0.36, "colour": 0.36, "both": 0.24}  # among the samples of one emoji
NO_CAPTION = 0.1  # share of samples, for classifier-free guidance
UNKNOWN_WORDS = (0.1, 0.15)  # share of captions with unknown words, and of tokens in them
RATES, DECAY_FROM = (0.02, 3e-3), 0.45
# A net that knows its pictures by heart needs no guidance, and is led far astray by the usual scale of 7. So in the
# last part of the training a caption only moves the prediction a part of the way from that without one: with this
# scale guidance arrives at the noise itself.
GUIDANCE, GUIDED_FROM = 4.0, 0.9
OFFSET_NOISE = 0.1  # so that brightness comes from the caption, not from the noise's mean
SHOWN = ("loss", "error of clean latents at t < 250", "< 500", "< 750", "< 1000")


def schedule():
    """Of SD 1.x's 1,000 timesteps: the cumulated alphas, the sigmas, the weight of the loss, and the cumulated density
    of samples. There are fewer where next to nothing is left to learn: without noise, and in noise alone."""
    betas = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, 0).float()
    sigmas = ((1 - alphas) / alphas).sqrt()
    weights = sigmas.clamp(0.3, 5.0)
    density = torch.ones(1000)
    density[:75] = 0.5
    density[850:] = torch.linspace(1, 0.5, 150)
    return alphas, sigmas, weights / weights.mean(), torch.cumsum(density / density.sum(), 0)


class Samples:
    """The training set; the generator alone decides what is drawn."""

    def __init__(self, words, group):
        self.words = words
        self.emoji, drawn, self.variants = data.load()
        latents = places.work("latents.npy")
        self.latents = torch.from_numpy(np.load(latents)).float()
        if len(self.latents) != len(self.variants):
            group.refuse(f"{latents} belongs to other variants: run.py latents makes it anew")
        names = vocabulary.all_names(self.emoji)
        own = [pictures.dominant(picture) for picture in drawn]
        self.own_colours = [c if c in data.colours_of(one, names) else None for c, one in zip(own, self.emoji)]
        kinds = ["both" if c and b != "white" else "colour" if c else "background" if b != "white" else "plain"
                 for _, c, b in self.variants]
        count = {}
        for (index, _, _), kind in zip(self.variants, kinds):
            count[index, kind] = count.get((index, kind), 0) + 1
        each = [WEIGHTS[kind] / count[v[0], kind] for v, kind in zip(self.variants, kinds)]
        total = np.bincount([v[0] for v in self.variants], each)
        self.cumulated = np.cumsum([e / total[v[0]] for v, e in zip(self.variants, each)]) / len(self.emoji)

    def draw(self, rng, size):
        """Latents [size, 4, 16, 16] and the rows of their captions, int64 [size, 77]."""
        chosen = np.searchsorted(self.cumulated, rng.random(size)).clip(max=len(self.variants) - 1)
        rows = []
        for variant in (self.variants[i] for i in chosen):
            if rng.random() < NO_CAPTION:
                rows.append(self.words.rows(""))
                continue
            index = variant[0]
            one = self.words.rows(captions.caption(self.emoji[index], variant, rng, self.own_colours[index]))
            if rng.random() < UNKNOWN_WORDS[0]:
                lost = torch.from_numpy(rng.random(len(one)) < UNKNOWN_WORDS[1]) & (one < self.words.unknown)
                one = one.masked_fill(lost, self.words.unknown)
            rows.append(one)
        return self.latents[chosen], torch.stack(rows)


class Diffusion(loop.Training):
    """The text encoder and the UNet."""

    def __init__(self, options, group):
        self.words = network.Words(options.model, data.load()[0])
        self.samples = Samples(self.words, group)
        net = network.Network(options.model, self.words, options.bfloat16)
        small = ("embedding", "conv_in", "conv_out", "time_emb")
        matrices = [p for n, p in net.named_parameters() if p.ndim >= 2 and not any(s in n for s in small)]
        super().__init__(net, group, options, matrices, RATES, DECAY_FROM)
        self.alphas, self.sigmas, self.weights, self.cumulated = schedule()

    def about(self):
        return {"emoji": [one.names for one in self.samples.emoji], **super().about()}

    def describe(self):
        return f"{len(self.samples.emoji)} emoji, {len(self.samples.variants)} variants, {self.words.size} words"

    def loss(self, rng, size):
        """The loss of one batch, and the squared error of the clean latents in each quarter of the timesteps."""
        clean, rows = self.samples.draw(rng, size)
        at = torch.from_numpy((np.arange(size) + rng.random(size)) / size).float()
        t = torch.searchsorted(self.cumulated, at).clamp(max=999)
        noise = rng.standard_normal(clean.shape, np.float32)
        noise += OFFSET_NOISE * rng.standard_normal((size, 4, 1, 1), np.float32)
        noise = torch.from_numpy(noise)
        alpha = self.alphas[t][:, None, None, None]
        noisy, target = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, noise
        if self.step >= GUIDED_FROM * self.steps:
            empty = self.words.rows("").expand_as(rows)
            with torch.no_grad():
                without = self.net(noisy, t, empty)
            captioned = (rows != empty).any(1)[:, None, None, None]
            target = torch.where(captioned, without + (noise - without) / GUIDANCE, noise)
        error = (self.net(noisy, t, rows) - target).pow(2).mean((1, 2, 3))
        clean_error = error.detach() * self.sigmas[t] ** 2
        quarters = [clean_error[t // 250 == q].mean().item() for q in range(4)]
        return (self.weights[t] * error).mean(), quarters


def main(arguments):
    parser = argparse.ArgumentParser(prog="run.py train", description=__doc__)
    parser.add_argument("--model", default=places.MODEL, help="the weights to begin with; default: %(default)s")
    parser.add_argument("--samples", type=places.positive, default=633600, help="how long in all; default: %(default)s")
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=True,
                        help="the UNet's products in bfloat16 (default: on)")
    loop.stage("train", arguments, Diffusion, CHECKPOINT, SHOWN, parser, batch=64,
               needs={"variants.json": "data", "latents.npy": "latents"})
