"""Sigma schedules (web UI 1.10 on k-diffusion), the t <-> sigma tables, and torch's CPU noise.

Every schedule is stored three times: `_f32` is what web UI and k-diffusion compute (torch, float32
throughout after alphas_cumprod), `_f64` is the same formula in double with alphas_cumprod rounded
to float32 once, as SD's buffer is, and `_f64_unrounded` is in double without that rounding.
"""

import json

import numpy as np
import torch

from common import EMOJI, save_array, seeded
from kdiffusion import external, sampling

STEP_COUNTS = (1, 2, 3, 10, 20, 31)
NOISE_SEEDS = (0, 123456789012345)


def alphas_cumprod():
    """SD's cumulative alphas, in double: betas linear in their square roots, then cumprod."""
    config = json.loads((EMOJI / "scheduler" / "scheduler_config.json").read_text())
    assert config["beta_schedule"] == "scaled_linear"
    start, end = config["beta_start"] ** 0.5, config["beta_end"] ** 0.5
    betas = torch.linspace(start, end, config["num_train_timesteps"], dtype=torch.float64) ** 2
    return np.cumprod(1.0 - betas.numpy(), axis=0)


def make_denoiser(inner_model, dtype=torch.float32):
    """k-diffusion's CompVis denoiser; SD keeps alphas_cumprod in a float32 buffer."""
    alphas = torch.tensor(alphas_cumprod(), dtype=torch.float32).to(dtype)
    return external.DiscreteEpsDDPMDenoiser(inner_model, alphas, quantize=False)


def automatic(denoiser, n):
    """Automatic and Uniform: k-diffusion's get_sigmas."""
    return denoiser.get_sigmas(n)


def karras(denoiser, n):
    """k-diffusion's get_sigmas_karras between the model's smallest and largest sigma, rho 7."""
    low, high = denoiser.sigmas[0].item(), denoiser.sigmas[-1].item()
    return sampling.get_sigmas_karras(n=n, sigma_min=low, sigma_max=high, rho=7.0)


def normal(denoiser, n):
    """Normal: evenly spaced between t(sigma_max) and t(sigma_min), each mapped back to a sigma."""
    start = denoiser.sigma_to_t(torch.tensor(denoiser.sigmas[-1].item()))
    end = denoiser.sigma_to_t(torch.tensor(denoiser.sigmas[0].item()))
    steps = torch.linspace(start.item(), end.item(), n)
    return torch.tensor([denoiser.t_to_sigma(t).item() for t in steps] + [0.0])


def exponential(denoiser, n):
    """k-diffusion's get_sigmas_exponential between the model's smallest and largest sigma."""
    low, high = denoiser.sigmas[0].item(), denoiser.sigmas[-1].item()
    return sampling.get_sigmas_exponential(n=n, sigma_min=low, sigma_max=high)


def sgm_uniform(denoiser, n):
    """SGM Uniform: as Normal with one step more, whose last value is left out."""
    start = denoiser.sigma_to_t(torch.tensor(denoiser.sigmas[-1].item()))
    end = denoiser.sigma_to_t(torch.tensor(denoiser.sigmas[0].item()))
    steps = torch.linspace(start.item(), end.item(), n + 1)[:-1]
    return torch.tensor([denoiser.t_to_sigma(t).item() for t in steps] + [0.0])


SCHEDULES = {"Automatic": automatic, "Uniform": automatic, "Karras": karras,
             "Exponential": exponential, "SGM Uniform": sgm_uniform, "Normal": normal}


def method_name(schedule):
    """The schedule as a method of DoubleSchedule and in file names: "sgm_uniform"."""
    return schedule.lower().replace(" ", "_")


class DoubleSchedule:
    """The same formulas in double, with or without SD's rounding of alphas_cumprod to float32."""

    def __init__(self, rounded=True):
        alphas = alphas_cumprod()
        if rounded:
            alphas = alphas.astype(np.float32).astype(np.float64)
        self.sigmas = np.sqrt((1.0 - alphas) / alphas)
        self.log_sigmas = np.log(self.sigmas)

    def t_to_sigma(self, t):
        """Log-linear between neighbouring model sigmas."""
        low, high, w = np.floor(t).astype(int), np.ceil(t).astype(int), t - np.floor(t)
        return np.exp((1 - w) * self.log_sigmas[low] + w * self.log_sigmas[high])

    def sigma_to_t(self, sigma):
        """The inverse, clamped to 0..999."""
        log_sigma = np.log(sigma)
        low = np.searchsorted(self.log_sigmas, log_sigma, side="right") - 1
        low = np.clip(low, 0, len(self.log_sigmas) - 2)
        below, above = self.log_sigmas[low], self.log_sigmas[low + 1]
        w = np.clip((below - log_sigma) / (below - above), 0.0, 1.0)
        return (1 - w) * low + w * (low + 1)

    def automatic(self, n):
        """sigma(t) for t evenly spaced from 999 to 0."""
        return np.append(self.t_to_sigma(np.linspace(999.0, 0.0, n)), 0.0)

    uniform = automatic

    def normal(self, n):
        """As automatic, between t(sigma_max) and t(sigma_min)."""
        start, end = self.sigma_to_t(self.sigmas[[-1, 0]])
        return np.append(self.t_to_sigma(np.linspace(start, end, n)), 0.0)

    def sgm_uniform(self, n):
        """The first n of n + 1 timesteps between t(sigma_max) and t(sigma_min)."""
        start, end = self.sigma_to_t(self.sigmas[[-1, 0]])
        return np.append(self.t_to_sigma(np.linspace(start, end, n + 1)[:-1]), 0.0)

    def exponential(self, n):
        """Even steps in log sigma between sigma_max and sigma_min."""
        return np.append(np.exp(np.linspace(self.log_sigmas[-1], self.log_sigmas[0], n)), 0.0)

    def karras(self, n):
        """rho 7 between sigma_max and sigma_min."""
        low, high = self.sigmas[0] ** (1 / 7), self.sigmas[-1] ** (1 / 7)
        return np.append((high + np.linspace(0.0, 1.0, n) * (low - high)) ** 7, 0.0)


def table_sigmas(rng):
    """50 sigmas: both ends, outside both ends, exact model sigmas, and log-uniform ones between."""
    model = DoubleSchedule().sigmas
    fixed = [0.001, 0.02, 20.0, 100.0, 1.0, *model[[0, 1, 2, 499, 500, 997, 998, 999]]]
    between = np.exp(rng.uniform(np.log(model[0]), np.log(model[-1]), 50 - len(fixed)))
    return np.array([*fixed, *between]).astype(np.float32)


def table_timesteps(rng):
    """50 timesteps: ends, whole ones, and fractional ones."""
    fixed = [0.0, 0.25, 1.0, 499.5, 500.0, 801.372, 998.0, 998.999, 999.0]
    return np.array([*fixed, *rng.uniform(0.0, 999.0, 50 - len(fixed))]).astype(np.float32)


def write_tables(denoiser, doubles):
    """The 1,000 model sigmas and 50 values of each map, as torch float32 and in double."""
    rng = np.random.Generator(np.random.PCG64(50))
    sigmas, steps = table_sigmas(rng), table_timesteps(rng)
    save_array("sigma_to_t_in_f32", sigmas)
    save_array("t_to_sigma_in_f32", steps)
    save_array("model_sigmas_f32", denoiser.sigmas)
    save_array("sigma_to_t_out_f32", denoiser.sigma_to_t(torch.from_numpy(sigmas)))
    save_array("t_to_sigma_out_f32", denoiser.t_to_sigma(torch.from_numpy(steps)))
    for kind, double in doubles.items():
        save_array(f"model_sigmas_{kind}", double.sigmas)
        save_array(f"sigma_to_t_out_{kind}", double.sigma_to_t(sigmas.astype(np.float64)))
        save_array(f"t_to_sigma_out_{kind}", double.t_to_sigma(steps.astype(np.float64)))


def write_schedules():
    """Write the tables and every schedule."""
    denoiser = make_denoiser(None)
    doubles = {"f64": DoubleSchedule(), "f64_unrounded": DoubleSchedule(rounded=False)}
    write_tables(denoiser, doubles)
    for name, function in SCHEDULES.items():
        if name == "Uniform":
            continue  # the same numbers as Automatic
        for n in STEP_COUNTS:
            stem = f"sigmas_{method_name(name)}_{n}_steps"
            save_array(f"{stem}_f32", function(denoiser, n))
            for kind, double in doubles.items():
                save_array(f"{stem}_{kind}", getattr(double, method_name(name))(n))


def write_noise():
    """torch.randn on the CPU: below 16 numbers, just above, many; and several draws in a row."""
    for seed in NOISE_SEEDS:
        for n in (1, 15, 16, 17, 65536):
            save_array(f"noise_seed_{seed}_n_{n}", torch.randn(n, generator=seeded(seed)))
        for stem, sizes in (("draws", (1024, 1024, 1024, 20)), ("mixed", (5, 20, 3, 16, 1))):
            generator = seeded(seed)
            for index, n in enumerate(sizes):
                noise = torch.randn(n, generator=generator)
                save_array(f"noise_seed_{seed}_{stem}_{index}_n_{n}", noise)
