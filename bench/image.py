"""A picture: Attune beside diffusers, turn by turn: Euler steps with classifier-free guidance, and the VAE."""
import argparse
import json
import os
import tempfile
import time

import common

PROMPT = "red apple"


def run_peer(options):
    """Seconds of `steps` Euler steps at batch 1 with guidance and of one decode by diffusers, and peak memory."""
    import resource

    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

    torch.set_num_threads(options.threads)
    pipe = StableDiffusionPipeline.from_pretrained(options.model, torch_dtype=torch.float32, safety_checker=None)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    call = dict(prompt=PROMPT, width=options.width, height=options.height, guidance_scale=7.0)
    pipe(num_inference_steps=1, output_type="latent", **call)
    start = time.perf_counter()
    latents = pipe(num_inference_steps=options.steps, output_type="latent", **call).images
    sample = time.perf_counter() - start
    with torch.no_grad():
        start = time.perf_counter()
        pipe.vae.decode(latents / pipe.vae.config.scaling_factor)
        decode = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"sample": sample, "decode": decode, "peak": peak}))


def run_ours(options, folder):
    reply = common.attune(["txt2img", PROMPT, "--model", options.model, "--sampler", "Euler", "--steps", str(options.steps), "--width",
                           str(options.width), "--height", str(options.height), "--seed", "1", "--threads", str(options.threads),
                           "-o", os.path.join(folder, "x.png")])
    return {"sample": reply["seconds"]["text"] + reply["seconds"]["sample"], "decode": reply["seconds"]["decode"],
            "peak": reply["peak_bytes"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--model", default=os.path.join(common.ROOT, "models", "emoji"))
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        run_peer(options)
        return
    ours, theirs = [], []
    forwarded = [f"--{key}={getattr(options, key)}" for key in ("threads", "steps", "width", "height", "model")]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            ours.append(run_ours(options, folder))
            theirs.append(common.peer(__file__, forwarded))
    print(f"{options.width}x{options.height}, {options.steps} Euler steps, {options.threads} threads, {options.rounds} rounds;"
          " ratio = diffusers' median / Attune's")
    for key, unit in (("sample", "time"), ("decode", "time"), ("peak", "memory")):
        a, b = common.median([x[key] for x in ours]), common.median([x[key] for x in theirs])
        print(f"{key:8} {unit} ratio {b / a:.2f}")


main()
