"""DDIM as web UI 1.10 runs it (modules/sd_samplers_timesteps*.py; Song et al. 2020, eq. 12), eta 0."""

import torch


def ddim_timesteps(steps):
    """Ascending; one more than there are steps to do. The last noise level is that of timestep 1."""
    stride = 1000 // steps
    return [min(k * stride + 1, 999) for k in range(-(-1000 // stride))]


def sample_ddim(predict_noise, noise, alphas, steps):
    """x after each step, from unit noise; PREDICT_NOISE(x, t) is guided already."""
    x, xs = noise, []
    timesteps = ddim_timesteps(steps)
    for now, then in reversed(list(zip(timesteps[1:], timesteps))):
        e = predict_noise(x, torch.full((len(x),), float(now), dtype=x.dtype))
        x0 = (x - (1 - alphas[now]).sqrt() * e) / alphas[now].sqrt()
        x = alphas[then].sqrt() * x0 + (1 - alphas[then]).sqrt() * e
        xs.append(x.clone())
    return xs
