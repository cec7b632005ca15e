"""Attention in double precision with numpy: softmax(q k^T * scale + mask) v, stored as float32."""

import numpy as np

from common import DATA, save_array, save_json


def attention(q, k, v, scale, allowed=None, added=None):
    """Double-precision attention. A query row that may attend to no key gives zeros."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) * scale
    if added is not None:
        scores = scores + added.astype(np.float64)
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    total = weights.sum(axis=-1, keepdims=True)
    return (weights @ v / np.where(total > 0, total, 1.0)).astype(np.float32)


def normal(rng, shape, amplitude=1.0):
    """Float32 normal numbers."""
    return (rng.standard_normal(shape) * amplitude).astype(np.float32)


def make_masks(rng, batch, heads, queries, keys):
    """A boolean mask [batch,1,q,k] with one empty row, and a float mask [batch,heads,q,k]."""
    allowed = rng.random((batch, 1, queries, keys)) < 0.6
    allowed[0, 0, 3] = False
    added = normal(rng, (batch, heads, queries, keys), 2.0)
    added[rng.random(added.shape) < 0.2] = -np.inf
    added[..., 0] = 0.0
    return allowed, added


def write_case(cases, stem, inputs, mask_kind="none", mask=None, scale=0.0, causal=False):
    """Compute one case, save the output (and the mask), and append its description."""
    q, k, v = inputs["arrays"]
    queries, keys, size = q.shape[2], k.shape[2], q.shape[3]
    allowed = mask if mask_kind == "bool" else None
    if causal:
        allowed = np.tril(np.ones((queries, keys), dtype=bool))
    added = mask if mask_kind == "float" else None
    factor = scale or 1.0 / np.sqrt(float(size))
    out = attention(q, k, v, factor, allowed, added)
    if mask is not None:
        save_array(f"{stem}_mask", mask)
    save_array(f"{stem}_out", out)
    scores = factor * np.abs(q.astype(np.float64) @ k.astype(np.float64).swapaxes(-1, -2))
    cases.append({
        "stem": stem, "batch": q.shape[0], "heads": q.shape[1], "queries": queries, "keys": keys,
        "head_size": size, "scale": scale, "causal": causal, "mask": mask_kind,
        "median_abs_score": float(f"{np.median(scores):.3g}"),
        "max_abs_score": float(f"{scores.max():.3g}"),
        "files": {
            "q": inputs["q"], "k": inputs["k"], "v": inputs["v"],
            "mask": f"{stem}_mask.npy" if mask is not None else None, "out": f"{stem}_out.npy",
        },
    })


def save_inputs(stem, q, k, v, shared=None):
    """Save q, k, v; SHARED names an earlier stem whose k and v are the same arrays."""
    save_array(f"{stem}_q", q)
    if shared is None:
        save_array(f"{stem}_k", k)
        save_array(f"{stem}_v", v)
    owner = shared or stem
    return {"arrays": (q, k, v), "q": f"{stem}_q.npy", "k": f"{owner}_k.npy", "v": f"{owner}_v.npy"}


def write_attention():
    """Query amplitudes 0.04 to 20 take scaled |q.k| from 0.01 to nearly 100; then masks and shapes."""
    rng = np.random.Generator(np.random.PCG64(37))
    cases, first = [], None
    shape_q, shape_k = (2, 3, 37, 40), (2, 3, 53, 40)
    unit, k, v = normal(rng, shape_q), normal(rng, shape_k), normal(rng, shape_k)
    for amplitude in (0.04, 0.4, 4, 20):
        stem = f"attention_cross_amplitude_{amplitude}"
        inputs = save_inputs(stem, unit * np.float32(amplitude), k, v, first)
        first = first or stem
        write_case(cases, stem, inputs)
        if amplitude == 4:
            masked = inputs
    allowed, added = make_masks(rng, 2, 3, 37, 53)
    write_case(cases, "attention_bool_mask", masked, "bool", allowed)
    write_case(cases, "attention_float_mask", masked, "float", added, scale=0.25)

    shape = (1, 3, 77, 8)
    causal = save_inputs("attention_causal", *(normal(rng, shape, a) for a in (2, 1, 1)))
    write_case(cases, "attention_causal", causal, causal=True)
    shape = (48, 2, 5, 20)
    temporal = save_inputs("attention_many_small", *(normal(rng, shape) for _ in range(3)))
    write_case(cases, "attention_many_small", temporal)
    shape_q, shape_k = (1, 1, 3, 13), (1, 1, 200, 13)
    arrays = normal(rng, shape_q, 3), normal(rng, shape_k), normal(rng, shape_k)
    long = save_inputs("attention_many_keys", *arrays)
    write_case(cases, "attention_many_keys", long)
    save_json(DATA / "attention_cases.json", cases)
