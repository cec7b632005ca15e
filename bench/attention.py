"""Attention: Attune's backends beside torch's scaled_dot_product_attention, turn by turn."""
import argparse
import json
import time

import common

SHAPES = ["2,8,4096,4096,40", "2,8,4096,77,40", "2,8,1024,1024,80", "2,8,1024,77,80", "2,8,256,256,160", "2,8,64,64,160",
          "1,1,4096,4096,512", "8192,8,16,16,40"]


def run_peer(options):
    """Milliseconds of torch's flash and math backends for one shape; math only where its score matrix fits in 2 GiB."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    torch.set_num_threads(options.threads)
    batch, heads, queries, keys, size = (int(x) for x in options.shape[0].split(","))
    torch.manual_seed(0)
    q = torch.randn(batch, heads, queries, size)
    k, v = torch.randn(batch, heads, keys, size), torch.randn(batch, heads, keys, size)
    result = {}
    for name in ("FLASH_ATTENTION", "MATH"):
        if name == "MATH" and batch * heads * queries * keys > 1 << 29:
            continue
        with torch.no_grad(), sdpa_kernel(getattr(SDPBackend, name)):
            times = []
            torch.nn.functional.scaled_dot_product_attention(q, k, v)
            for _ in range(5):
                start = time.perf_counter()
                torch.nn.functional.scaled_dot_product_attention(q, k, v)
                times.append(time.perf_counter() - start)
        result[name] = 1e3 * common.median(times)
    print(json.dumps(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    common.add_threads_option(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", action="append")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        run_peer(options)
        return
    common.pin(options.threads)
    print(f"{options.threads} threads, {options.rounds} rounds; ratio = torch's median time / Attune's")
    for shape in options.shape or SHAPES:
        ours, theirs = {}, {}
        for _ in range(options.rounds):
            arguments = ["bench", "attention", "--shape", shape, "--threads", str(options.threads)]
            for entry in common.attune(arguments)[0]["results"]:
                if "refused" not in entry:
                    ours.setdefault(entry["backend"], []).append(entry["milliseconds"]["median"])
            torch = common.peer("attention.py", "--peer", "--shape", shape, "--threads", str(options.threads))[0]
            for name, value in torch.items():
                theirs.setdefault(name, []).append(value)
        for backend, times in sorted(ours.items()):
            ratios = ", ".join(f"{name.lower()} {common.median(t) / common.median(times):.2f}" for name, t in theirs.items())
            print(f"{shape:20} {backend:12} {ratios}", flush=True)


main()
