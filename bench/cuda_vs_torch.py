#!/usr/bin/env python3
"""attune-cuda's attention beside torch's scaled_dot_product_attention, on one GPU, in one run. Not yet run on hardware.

Both take turns, shape by shape: sample_host bench attention in a process of its own, torch here, each call
between two events. Prints Markdown: medians in milliseconds and torch's time by each backend's (above 1: the backend is faster).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

SHAPES = ["2,8,4096,4096,40", "2,8,4096,77,40", "2,8,1024,1024,80", "2,8,1024,77,80", "2,8,256,256,160", "1,1,4096,4096,512", "8192,8,16,16,40"]


def attune(host, device, dtype, shape):
    """Milliseconds by backend; a declined shape is left out."""
    command = [host, "bench", "attention", "--device", device, "--dtype", dtype, "--shape", shape, "--json", "-q"]
    reply = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {r["backend"]: r["milliseconds"]["median"] for r in reply["results"] if "milliseconds" in r}


def torchs(torch, device, dtype, shape, rounds):
    batch, heads, queries, keys, size = map(int, shape.split(","))
    make = lambda tokens: torch.rand(batch, heads, tokens, size, device=device, dtype=getattr(torch, dtype)) * 2 - 1
    q, k, v = make(queries), make(keys), make(keys)
    attend = torch.nn.functional.scaled_dot_product_attention
    times = []
    for i in range(rounds + 3):  # the first are not measured
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        attend(q, k, v)
        end.record()
        end.synchronize()
        if i >= 3:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtype", default="float16", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--shape", action="append", metavar="B,H,Nq,Nk,D")
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("cuda_vs_torch: torch is not installed for this Python (pip install torch)")
    if not torch.cuda.is_available():
        sys.exit("cuda_vs_torch: torch finds no GPU")
    host = os.environ.get("SAMPLE_HOST", os.path.join(os.path.dirname(__file__), "..", "build", "sample_host"))
    print(f"{torch.cuda.get_device_name(options.device)}, {options.dtype}, torch {torch.__version__}\n")
    print("| shape | torch ms | backend | ms | torch's by it |\n|---|---|---|---|---|")
    for shape in options.shape or SHAPES:
        peer = torchs(torch, options.device, options.dtype, shape, options.rounds)
        for backend, ms in attune(host, options.device, options.dtype, shape).items():
            print(f"| {shape} | {peer:.3f} | {backend} | {ms:.3f} | {peer / ms:.2f} |")


if __name__ == "__main__":
    main()
