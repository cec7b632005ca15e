"""The web UI's other noise in numpy: Philox as CUDA's torch.randn uses it, and variation seeds.

Facts from modules/rng_philox.py and rng.py of web UI 1.10; Philox 4x32-10 is Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", SC 2011.
"""

import numpy as np
import torch

from common import seeded

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF
TO_UNIT, TO_ANGLE = 2.0 ** -32, 2.0 ** -32 * 2.0 * np.pi
VECTOR = [[-0.92466259, -0.42534415, -2.6438457, 0.14518388],  # seed 0, as the web UI states it
          [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
          [-1.07454231, -0.36314407, -1.67105067, 2.26550497]]


def philox(counter, key):
    """Ten rounds on a counter of four arrays (uint64, each below 2^32) and a key of two numbers."""
    a, b, c, d = counter
    low, high = key
    for _ in range(10):
        first, second = a * np.uint64(MULTIPLIERS[0]), c * np.uint64(MULTIPLIERS[1])
        a, b, c, d = ((second >> np.uint64(32)) ^ b ^ np.uint64(low), second & np.uint64(WORD),
                      (first >> np.uint64(32)) ^ d ^ np.uint64(high), first & np.uint64(WORD))
        low, high = (low + WEYL[0]) & WORD, (high + WEYL[1]) & WORD
    return a, b, c, d


class NvGenerator:
    """One image's stream: each draw counts up counter[0], each element is counter[2]."""

    def __init__(self, seed):
        self.key, self.calls = (seed & WORD, seed >> 32), 0

    def words(self, n):
        """The first two words for each of n elements."""
        zeros = np.zeros(n, np.uint64)
        counter = (zeros + np.uint64(self.calls), zeros, np.arange(n, dtype=np.uint64), zeros)
        self.calls += 1
        return philox(counter, self.key)[:2]

    def randn(self, shape, kind=np.float64):
        """float32 normal values; only the first of each Box-Muller pair is used. KIND float32 is the
        arithmetic of CUDA's curand_normal; in float64 the web UI's stated values come out."""
        first, second = self.words(int(np.prod(shape)))
        unit, angle = kind(TO_UNIT), kind(TO_ANGLE)
        u = first.astype(kind) * unit + unit / kind(2)
        v = second.astype(kind) * angle + angle / kind(2)
        values = np.sqrt(kind(-2) * np.log(u)) * np.sin(v)
        return torch.from_numpy(values.astype(np.float32).reshape(shape))


class CpuGenerator:
    """torch's own, with the same interface."""

    def __init__(self, seed):
        self.generator = seeded(seed)

    def randn(self, shape):
        """torch.randn on the CPU."""
        return torch.randn(shape, generator=self.generator)


GENERATORS = {"CPU": CpuGenerator, "NV": NvGenerator}


def slerp(strength, low, high):
    """Spherical interpolation of [4,h,w] noise; vectors are columns of a channel (dimension 1)."""
    unit = [noise / noise.norm(dim=1, keepdim=True) for noise in (low, high)]
    dot = (unit[0] * unit[1]).sum(dim=1)
    if dot.mean() > 0.9995:
        return low * strength + high * (1 - strength)
    angle = torch.acos(dot)
    parts = [torch.sin(share * angle) / torch.sin(angle) for share in (1.0 - strength, strength)]
    return parts[0].unsqueeze(1) * low + parts[1].unsqueeze(1) * high


class ImageNoise:
    """The noise of one image: the first draw mixed with the variation seed's, then its own stream."""

    def __init__(self, case, index):
        self.kind = GENERATORS[case.get("randn_source", "CPU")]
        self.strength = case.get("subseed_strength", 0.0)
        self.generator = self.kind(case["seed"] + (0 if self.strength else index))
        self.subseed = case.get("subseed", 0) + index
        self.begun = False

    def next(self, shape):
        """The next draw."""
        noise = self.generator.randn(shape)
        if self.begun or not self.strength:
            self.begun = True
            return noise
        self.begun = True
        return slerp(self.strength, noise, self.kind(self.subseed).randn(shape))
