"""Paths, deterministic torch settings, and the writers that every golden file goes through."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DATA = HERE / "data"
EMOJI = ROOT / "models" / "emoji"
TINY = DATA / "tiny"
MODELS = {"emoji": EMOJI, "tiny": TINY}

DTYPES = {"float32", "float64", "int32", "int64", "uint8"}


def make_torch_deterministic():
    """One thread and deterministic kernels: the same machine gives the same bytes every time."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)


def empty_data_folder():
    """Start from nothing, so that a file which the scripts no longer write cannot survive."""
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir()


def seeded(seed):
    """A torch CPU generator with its own state."""
    return torch.Generator().manual_seed(seed)


def save_array(name, array):
    """Write data/NAME.npy: C order, one of DTYPES, finite unless it is a mask."""
    array = array.numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    if array.dtype.name not in DTYPES:
        raise TypeError(f"{name}: {array.dtype} is not one of {sorted(DTYPES)}")
    if not name.endswith("_mask") and not np.isfinite(array).all():
        raise ValueError(f"{name}: not finite")
    np.save(DATA / f"{name}.npy", np.ascontiguousarray(array))


def save_json(path, value):
    """Write indented JSON with a final newline."""
    Path(path).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def save_lines(name, lines):
    """Write data/NAME, one JSON string per line (pure ASCII, so that any line reader works)."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (DATA / name).write_text(text, encoding="ascii")


def relative_to_here(path):
    """PATH as seen from tests/golden, with ../ where it lies outside."""
    if path.is_relative_to(HERE):
        return path.relative_to(HERE).as_posix()
    return "../../" + path.relative_to(ROOT).as_posix()


def indexed_files():
    """Everything that the goldens are made of: scripts, the emoji model, and the data itself."""
    scripts = sorted(HERE.glob("*.py")) + [HERE / "requirements.txt"]
    emoji = [EMOJI / "model_index.json"]
    for part in ("scheduler", "text_encoder", "tokenizer", "unet", "vae"):
        emoji += sorted(p for p in (EMOJI / part).iterdir() if p.is_file())
    data = sorted(p for p in DATA.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    return scripts + emoji + data


def write_sums():
    """Write data/SHA256SUMS, to be checked with `sha256sum -c data/SHA256SUMS` in tests/golden."""
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {relative_to_here(p)}\n"
        for p in indexed_files()
    ]
    (DATA / "SHA256SUMS").write_text("".join(lines), encoding="ascii")
