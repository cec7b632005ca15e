"""Whole pictures: k-diffusion's samplers drive diffusers' UNet as web UI 1.10 does.

Image i of a batch owns a torch CPU generator seeded with seed+i: its first draw is the first
noise, and every ancestral step draws once more from it. The timestep of a sigma stays fractional.
"""

import numpy as np
import torch

from common import DATA, save_array, save_json
from ddim import sample_ddim
from kdiffusion import sampling
from model_goldens import compare, double_embedding
from schedule_goldens import SCHEDULES, DoubleSchedule, alphas_cumprod, make_denoiser, method_name
from webui_noise import ImageNoise
from webui_prompts import condition

SAMPLERS = {
    "Euler a": sampling.sample_euler_ancestral,
    "Euler": sampling.sample_euler,
    "DPM++ 2M": sampling.sample_dpmpp_2m,
}

EMOJI = dict(model="emoji", prompt="red apple", width=128, height=128, batch=2)
TINY = dict(model="tiny", prompt="a red apple, 2 leaves", negative="blue",
            steps=6, width=72, height=56, batch=1, keep_steps=True)

CASES = [
    dict(EMOJI, stem="case_emoji_euler_a", sampler="Euler a", schedule="Automatic", steps=20,
         cfg=7.0, seed=1234, negative="", keep_steps=True),
    dict(EMOJI, stem="case_emoji_dpmpp_2m", sampler="DPM++ 2M", schedule="Karras", steps=20,
         cfg=5.0, seed=1234, negative=""),
    dict(EMOJI, stem="case_emoji_dpmpp_2m_negative", sampler="DPM++ 2M", schedule="Karras",
         steps=20, cfg=5.0, seed=77, negative="blue"),
    dict(EMOJI, stem="case_emoji_euler", sampler="Euler", schedule="Normal", steps=10,
         cfg=7.0, seed=123456789012345, negative="blue"),
    dict(TINY, stem="case_tiny_euler_a", sampler="Euler a", schedule="Normal", cfg=7.0, seed=3),
    dict(TINY, stem="case_tiny_euler", sampler="Euler", schedule="Karras", cfg=5.0, seed=4),
    dict(TINY, stem="case_tiny_dpmpp_2m", sampler="DPM++ 2M", schedule="Uniform", cfg=5.0, seed=5),
    dict(EMOJI, stem="case_emoji_ddim", sampler="DDIM", schedule="Automatic", steps=10, cfg=7.0,
         seed=21, negative=""),
    dict(TINY, stem="case_tiny_ddim", sampler="DDIM", schedule="Automatic", cfg=5.0, seed=6),
    dict(TINY, stem="case_tiny_webui", sampler="Euler a", schedule="Exponential", cfg=5.0, seed=7,
         prompt="(a red apple:1.3), 2 [leaves] " + "and a green star, " * 20, batch=2,
         randn_source="NV", clip_skip=2, subseed=70, subseed_strength=0.4),
]


class GuidedDenoiser:
    """Classifier-free guidance on the denoised pictures: uncond + (cond - uncond) * cfg."""

    def __init__(self, model, case):
        batch = case["batch"]
        texts = condition(model, [case["prompt"], case["negative"]], case.get("clip_skip", 1))
        self.context = texts.repeat_interleave(batch, dim=0)
        self.denoiser = make_denoiser(self.predict, model.dtype)
        self.model, self.cfg = model, case["cfg"]

    def predict(self, x, timesteps):
        """The UNet on the doubled batch: conditioned half first."""
        return self.model.predict_noise(x, timesteps, self.context)

    def guided_noise(self, x, timesteps):
        """Guidance on the noise: the same thing for one timestep, as the picture is linear in it."""
        noise = self.predict(torch.cat([x, x]), torch.cat([timesteps, timesteps]))
        cond, uncond = noise.chunk(2)
        return uncond + (cond - uncond) * self.cfg

    def __call__(self, x, sigma):
        denoised = self.denoiser(torch.cat([x, x]), torch.cat([sigma, sigma]))
        cond, uncond = denoised.chunk(2)
        return uncond + (cond - uncond) * self.cfg


def make_noise_source(case, dtype):
    """A function that returns the next noise [batch,4,h,w], one generator per image."""
    sources = [ImageNoise(case, i) for i in range(case["batch"])]
    shape = (4, case["height"] // 8, case["width"] // 8)
    return lambda *_: torch.stack([source.next(shape) for source in sources]).to(dtype)


def make_sigmas(case, dtype):
    """The schedule as web UI computes it; in double where the run is in double."""
    name, steps = case["schedule"], case["steps"]
    if dtype == torch.float64:
        return torch.from_numpy(getattr(DoubleSchedule(), method_name(name))(steps))
    return SCHEDULES[name](make_denoiser(None), steps)


def run_sampler(model, case):
    """Return (first noise, list of x after each step)."""
    guided, next_noise = GuidedDenoiser(model, case), make_noise_source(case, model.dtype)
    noise, before = next_noise(), []
    if case["sampler"] == "DDIM":
        alphas = torch.tensor(alphas_cumprod(), dtype=torch.float32).to(model.dtype)
        return noise, sample_ddim(guided.guided_noise, noise, alphas, case["steps"])
    sigmas = make_sigmas(case, model.dtype)
    extra = {}
    if case["sampler"] == "Euler a":
        extra = dict(eta=1.0, s_noise=1.0, noise_sampler=next_noise)
    last = SAMPLERS[case["sampler"]](
        guided, noise * sigmas[0], sigmas, disable=True,
        callback=lambda state: before.append(state["x"].clone()), **extra)
    return noise, before[1:] + [last]


def to_pixels(model, latents):
    """uint8 [n,height,width,3]: web UI multiplies by 255 and cuts the fraction off, no rounding."""
    decoded = torch.cat([model.decode(x[None] / model.vae.config.scaling_factor) for x in latents])
    unit = torch.clamp((decoded + 1.0) / 2.0, min=0.0, max=1.0).float()
    return (255.0 * np.moveaxis(unit.numpy(), 1, 3)).astype(np.uint8)


def compare_pixels(single, double):
    """How many of the 8-bit values differ, and by how much at most."""
    difference = np.abs(single.astype(int) - double.astype(int))
    return {"values": difference.size, "differing": int((difference > 0).sum()),
            "max_levels": int(difference.max())}


def write_case(case, model, double, precision):
    """Run one case in float32 (kept) and in double (measured); return its entry for cases.json."""
    stem = case["stem"]
    noise, steps = run_sampler(model, case)
    images = to_pixels(model, steps[-1])
    save_array(f"{stem}_noise", noise)
    save_array(f"{stem}_latents", steps[-1])
    save_array(f"{stem}_images", images)
    files = {part: f"{stem}_{part}.npy" for part in ("noise", "latents", "images")}
    files["steps"] = None
    if case.get("keep_steps"):
        save_array(f"{stem}_steps", torch.stack(steps))
        files["steps"] = f"{stem}_steps.npy"

    with double_embedding():
        truth = run_sampler(double, case)[1][-1]
    precision[f"{stem}_latents"] = compare(steps[-1], truth)
    precision[f"{stem}_images"] = compare_pixels(images, to_pixels(double, truth))
    described = {key: value for key, value in case.items() if key != "keep_steps"}
    return {**described, "eta": 1.0, "s_noise": 1.0, "files": files}


def write_cases(models, doubles, precision):
    """Run every case and describe them in cases.json."""
    entries = [
        write_case(case, models[case["model"]], doubles[case["model"]], precision)
        for case in CASES
    ]
    save_json(DATA / "cases.json", entries)
