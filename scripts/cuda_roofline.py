"""The roofline table of docs/cuda.md: for each of Stable Diffusion's shapes which unit of a GPU bounds the kernel, and what part
of the tensor cores' peak is left, estimated from the instruction counts of tests/cuda/budgets. Not a measurement: no latency,
no cache misses, no clock changes.
"""

# (name, heads, queries, keys, head size), for a batch of 2 (classifier-free guidance)
SHAPES = [
    ("SD 1.5, 64x64, self", 8, 4096, 4096, 40),
    ("SD 1.5, 32x32, self", 8, 1024, 1024, 80),
    ("SD 1.5, 16x16, self", 8, 256, 256, 160),
    ("SD 1.5, 8x8, self", 8, 64, 64, 160),
    ("SD 1.5, 64x64, text", 8, 4096, 77, 40),
    ("SD 1.5, 32x32, text", 8, 1024, 77, 80),
    ("SD 2.1, 96x96, self", 5, 9216, 9216, 64),
    ("SDXL, 64x64, self", 10, 4096, 4096, 64),
    ("SDXL, 32x32, self", 20, 1024, 1024, 64),
    ("SDXL, 64x64, text", 10, 4096, 77, 64),
    ("VAE, 64x64", 1, 4096, 4096, 512),
]

# name, sm, SMs, GHz, GB/s of device memory, fused multiply-adds of fp16 (sums in fp32) a clock and SM: vendors' data sheets and
# architecture white papers; the H100's mma.sync is taken to reach half of its peak, which takes wgmma. Every SM starts 4 warp instructions a clock and computes 16 powers of two (MUFU).
DEVICES = [
    ("A100", 80, 108, 1.41, 1555, 1024),
    ("RTX 3090", 86, 82, 1.70, 936, 256),
    ("RTX 4090", 89, 128, 2.52, 1008, 256),
    ("H100 SXM, by mma.sync", 90, 132, 1.83, 3350, 1024),
]


def ceil(a, b):
    return -(-a // b)


def estimate(row, tile, shape, device):
    """(seconds by unit, multiply-adds) of one launch, whole waves of blocks."""
    _, heads, n_q, n_k, size = shape
    rows, keys = tile
    _, _, sms, ghz, memory, mma = device
    blocks = 2 * heads * ceil(n_q, rows)
    tiles = ceil(n_k, keys)
    waves = ceil(blocks, sms)  # blocks of the busiest SM
    warp_tiles = 4 * tiles * waves
    clock = ghz * 1e9
    seconds = {
        "tensor cores": warp_tiles * (row["hmma"] - row["hmma8"] / 2) * 16 * 8 * 16 / mma / clock,
        "issue": warp_tiles * row["loop"] / 4 / clock,
        "powers": warp_tiles * row["mufu"] * 32 / 16 / clock,
        "memory": 2 * 2 * heads * (2 * n_q + 2 * n_k) * size / (memory * 1e9),
    }
    return seconds, 2 * heads * n_q * n_k * size * 2


def table(budgets, sixteens_and_keys):
    tiles = {size: (64 * m, keys) for size, (m, keys) in sixteens_and_keys.items()}
    tiles[512] = (16, 16)
    print("| shape (batch 2, fp16) | " + " | ".join(d[0] for d in DEVICES) + " |")
    print("|---|" + "---|" * len(DEVICES))
    for shape in SHAPES:
        cells = []
        for device in DEVICES:
            row = budgets[f"attune_flash_f16_{shape[4]}", device[1]]
            seconds, multiplies = estimate(row, tiles[shape[4]], shape, device)
            bound = max(seconds, key=seconds.get)
            peak = multiplies / (device[5] * device[2] * device[3] * 1e9)
            cells.append(f"{bound}, {100 * peak / seconds[bound]:.0f} %")
        print(f"| {shape[0]}: {shape[1]} × {shape[2]} × {shape[3]} × {shape[4]} | " + " | ".join(cells) + " |")
