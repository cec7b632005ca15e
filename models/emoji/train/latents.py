"""Encode every variant with the VAE. Writes latents.npy (float16 [variant, 4, 16, 16], unit variance)."""
import argparse
import multiprocessing
import os

import diffusers
import numpy as np
import torch

import data
import pictures
import places

BATCH = 16


def encode(task):
    """The latents of a range of variants; with one thread, for a process of its own."""
    folder, first, last = task
    torch.set_num_threads(1)
    _, drawn, variants = data.load()
    vae = diffusers.AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    found = []
    with torch.inference_mode():
        for at in range(first, last, BATCH):
            batch = np.stack([data.render(drawn, v) for v in variants[at:min(at + BATCH, last)]])
            images = torch.from_numpy(pictures.channels_first(batch))
            found.append(vae.encode(images).latent_dist.mean * vae.config.scaling_factor)
    return torch.cat(found).numpy()


def main(arguments):
    parser = argparse.ArgumentParser(prog="run.py latents", description=__doc__)
    parser.add_argument("--vae", default=os.path.join(places.MODEL, "vae"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    places.needs(os.path.join(options.vae, "config.json"), "give the folder of a VAE")
    count = len(data.load()[2])
    workers = len(os.sched_getaffinity(0))
    bounds = np.linspace(0, count, 4 * workers + 1).astype(int)
    tasks = [(options.vae, first, last) for first, last in zip(bounds, bounds[1:]) if first < last]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        parts = []
        for part in pool.imap(encode, tasks):
            parts.append(part)
            print(f"{sum(map(len, parts))} of {count}", flush=True)
    latents = np.concatenate(parts)
    np.save(places.work("latents.npy"), latents.astype(np.float16))
    print(f"{count} latents, standard deviation {latents.std():.3f}")
