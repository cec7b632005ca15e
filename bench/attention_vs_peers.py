"""
Attention: Attune's backends beside torch's scaled_dot_product_attention in one process, turn by turn, with the multiply-add
peak of the same minutes; Markdown tables and a plot.
"""
import argparse
import os
import sys
import time

import common

# Self and cross attention of Stable Diffusion 1.5 (512 and 768 pixels), 2.x, XL; the VAE's; AnimateDiff's.
SHAPES = ["2,8,4096,4096,40", "2,8,6144,6144,40", "2,8,1024,1024,80", "2,10,4096,4096,64", "2,20,1024,1024,64",
          "2,8,256,256,160", "2,8,64,64,160", "2,8,4096,77,40", "2,8,1024,77,80", "8192,8,16,16,40", "1,1,4096,4096,512"]
QUICK = ["2,8,1024,1024,80", "2,8,256,256,160", "2,8,64,64,160", "2,8,1024,77,80"]
LAYOUTS = ["(B,H,N,D)", "(B,N,H,D)"]
PEERS = ["torch flash", "torch math"]  # no names of ours, which has a math too
# Threads that finished a parallel region look out for the next one; after this long OpenMP's and ours sleep.
SETTLE_SECONDS = 0.03
FEWEST_TURNS, SHAPE_SECONDS = 3, 10  # turns go on to --rounds until a shape has taken that long
MATH_FLOATS = 1 << 29  # of its score matrix: more is a peer that nobody would run
# Outputs are means of values of deviation 1: sums of up to 6144 products, each rounded to 2^-24 of about 1, in another order.
TOLERANCE = 2e-5


def read_options():
    parser = argparse.ArgumentParser(description=__doc__)
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, action="append", help="may be repeated; default: 1 and all CPUs")
    parser.add_argument("--shape", action="append", metavar="B,H,Nq,Nk,D", help="may be repeated; default: Stable Diffusion's")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant, fewer at slow shapes; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="four small shapes, 3 turns")
    parser.add_argument("--plot", metavar="PNG", help="also draw the ratios")
    options = parser.parse_args()
    options.threads = options.threads or sorted({1, cpus})
    options.shape = options.shape or (QUICK if options.quick else SHAPES)
    options.rounds = 3 if options.quick else options.rounds
    if not 1 <= min(options.threads) <= max(options.threads) <= cpus:
        sys.exit(f"--threads {max(options.threads)}: this process may use 1 to {cpus} CPUs")
    for shape in options.shape:
        if len(shape.split(",")) != 5 or not all(part.isdigit() and int(part) for part in shape.split(",")):
            sys.exit(f"--shape {shape} is no shape; write B,H,Nq,Nk,D such as 2,8,4096,77,40")
    return options


def start(cpus):
    """
    torch and the open library, the threads of each pinned, one per CPU. torch comes first and starts its threads while this
    one may run anywhere: its OpenMP uses only the CPUs that the thread which loads it has, and binds that to the first.
    """
    os.environ["OMP_PLACES"] = ",".join(f"{{{cpu}}}" for cpu in cpus)
    import torch
    from attune_api import Library, threads_of_process

    before = threads_of_process()
    torch.set_num_threads(len(cpus))
    torch.zeros(1 << 22).add_(1)
    places = [os.sched_getaffinity(thread) for thread in threads_of_process() - before]
    os.sched_setaffinity(0, {cpus[0]})
    missing = [cpu for cpu in cpus[1:] if {cpu} not in places]  # idle threads of torch's other pool lie on the first
    if missing:
        sys.exit(f"no thread of torch is pinned to the CPUs {missing}: its figures would say nothing")
    return torch, Library(cpus)


def make_tensors(torch, shape, layout):
    """q, k, v and out with axes (batch, head, token, channel) over memory in the layout."""
    batch, heads, queries, keys, size = shape
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(batch, heads, n, size, generator=generator) for n in (queries, keys, keys)]
    tensors.append(torch.zeros(batch, heads, queries, size))
    if layout == LAYOUTS[1]:
        tensors = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in tensors]
    return tensors


def torch_call(torch, backend, tensors):
    """torch's function held to one of its backends; a call returns the output."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kind = {"torch flash": SDPBackend.FLASH_ATTENTION, "torch math": SDPBackend.MATH}[backend]

    def attend():
        with torch.no_grad(), sdpa_kernel(kind):
            return torch.nn.functional.scaled_dot_product_attention(*tensors[:3])

    return attend


class Contestant:
    def __init__(self, name, layout, call):
        self.name, self.layout, self.call, self.seconds = name, layout, call, []

    def turn(self):
        """One call that warms up, then some that count, about 0.1 s in all; where one takes longer, that one."""
        time.sleep(SETTLE_SECONDS)
        spent = self.once()
        if spent > 0.1:
            self.seconds.append(spent)
        for _ in range(min(25, int(0.1 / spent))):
            self.seconds.append(self.once())

    def once(self):
        start = time.perf_counter()
        self.call()
        return time.perf_counter() - start

    @property
    def median(self):
        return common.median(self.seconds)


def check(contestant, out, reference):
    difference = float((out - reference).abs().max())
    if not difference <= TOLERANCE:
        sys.exit(f"{contestant}: differs from torch by {difference:g}, more than {TOLERANCE:g}")


def enter(torch, library, stream, shape, layout):
    """Everybody who can run the shape in the layout, each one's result compared; ours by what they hold."""
    from attune_api import Attention

    tensors = make_tensors(torch, shape, layout)
    batch, heads, queries, keys, _ = shape
    contestants, ours = [], []
    for peer in PEERS:
        if peer == "torch flash" or batch * heads * queries * keys <= MATH_FLOATS:
            contestants.append(Contestant(peer, layout, torch_call(torch, peer, tensors)))
    reference = contestants[0].call()
    for name in library.backends(stream, tensors):
        if name != "sdp" and layout != LAYOUTS[0]:
            continue
        ours.append(Attention(library, name, stream, tensors))
        tensors[3].fill_(float("nan"))
        ours[-1]()
        check(f"{name}, {shape}, {layout}", tensors[3], reference)
        contestants.append(Contestant(name, layout, ours[-1]))
    return contestants, ours


def run_shape(torch, library, cpus, threads, shape, rounds):
    """One row of the result: medians by layout and contestant, the peak's median, workspaces."""
    torch.set_num_threads(threads)
    stream = library.stream(threads)
    contestants, ours = [], []
    for layout in LAYOUTS:
        entered, held = enter(torch, library, stream, shape, layout)
        contestants += entered
        ours += held
    peaks = []
    start = time.perf_counter()
    for turn in range(rounds):
        if turn >= FEWEST_TURNS and time.perf_counter() - start > SHAPE_SECONDS:
            break
        first = turn % len(contestants)
        for contestant in contestants[first:] + contestants[:first]:
            # A slow one needs no more turns to be known as slow.
            if turn < FEWEST_TURNS or contestant.median < 1.5 * min(c.median for c in contestants):
                peaks.append(common.fma_peak(cpus[:threads]))
                contestant.turn()
    workspaces = {}
    for attention in ours:  # sdp's is that of the first layout, as the others'
        workspaces.setdefault(attention.choice.backend.decode(), attention.choice.workspace)
    for attention in ours:
        attention.close()
    times = {layout: {c.name: c.median for c in contestants if c.layout == layout} for layout in LAYOUTS}
    return {"shape": shape, "threads": threads, "seconds": times, "peak": common.median(peaks), "workspace": workspaces}


def best_peer(row, layout):
    return min(row["seconds"][layout][peer] for peer in PEERS if peer in row["seconds"][layout])


def rate(row, seconds):
    """GFLOP/s: a product and a sum per query, key and channel of k and of v."""
    batch, heads, queries, keys, size = row["shape"]
    return 4e-9 * batch * heads * queries * keys * size / seconds


def label(row):
    return ",".join(map(str, row["shape"]))


def print_row(row):
    """Ratios are torch's median / sdp's: above 1 sdp is faster."""
    cells = [label(row), str(row["threads"])]
    for layout in LAYOUTS:
        times = row["seconds"][layout]
        cells.append(f"{1e3 * times['sdp']:.2f}")
        cells += [f"{times[peer] / times['sdp']:.2f}" if peer in times else "" for peer in PEERS]
    head = row["seconds"][LAYOUTS[0]]
    gflops = rate(row, head["sdp"])
    cells += [f"{gflops:.0f}", f"{100 * gflops / row['peak']:.0f} %", f"{100 * rate(row, best_peer(row, LAYOUTS[0])) / row['peak']:.0f} %",
              f"{row['seconds'][LAYOUTS[1]]['sdp'] / head['sdp']:.3f}"]
    print("| " + " | ".join(cells) + " |", flush=True)


def print_backends(rows):
    """Each backend's time by sdp's, (B,H,N,D), and its workspace."""
    names = list(rows[0]["workspace"])
    print("\n| shape | threads | " + " | ".join(f"{name} / sdp | KiB" for name in names) + " |")
    print("|---|---|" + "---|" * (2 * len(names)))
    for row in rows:
        times = row["seconds"][LAYOUTS[0]]
        cells = [f"{times[name] / times['sdp']:.3f} | {row['workspace'][name] / 1024:.0f}" for name in names]
        print(f"| {label(row)} | {row['threads']} | " + " | ".join(cells) + " |")


def print_call_cost(tool, cpu):
    os.sched_setaffinity(0, {cpu})
    cost, _, _ = common.run([tool, common.BUILD])
    print(f"\nA call of attune_attend costs {cost['attend'] - cost['kernel']:.0f} ns above the kernel's {cost['kernel']:.0f} ns (one query, "
          f"one key); attune_choose, which queries {cost['backends']} backends, {cost['choose']:.0f} ns.")


def plot(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = sorted({row["threads"] for row in rows})
    shapes = list(dict.fromkeys(label(row) for row in rows))
    figure, axes = pyplot.subplots(figsize=(8, 0.42 * len(shapes) + 1.2), layout="constrained")
    height = 0.8 / len(counts)
    for index, threads in enumerate(counts):
        ratios = {label(row): best_peer(row, LAYOUTS[0]) / row["seconds"][LAYOUTS[0]]["sdp"] for row in rows
                  if row["threads"] == threads}
        at = [shapes.index(shape) + index * height for shape in ratios]
        bars = axes.barh(at, ratios.values(), height, label=f"{threads} thread{'s' if threads > 1 else ''}")
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.margins(x=0.08)  # for the labels
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks([i + 0.4 - height / 2 for i in range(len(shapes))], shapes)
    axes.invert_yaxis()
    axes.set_ylabel("B,H,Nq,Nk,D")
    axes.set_xlabel("time of torch's faster backend / time of sdp, float32")
    axes.legend()
    figure.savefig(path, dpi=120)


def main():
    options = read_options()
    python = common.peer_python()
    if python != sys.executable:
        os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])
    tool = common.build("call_cost", "peak.so")[0]
    cpus = sorted(os.sched_getaffinity(0))[:max(options.threads)]
    common.pin(len(cpus))
    torch, library = start(cpus)
    print(f"torch {torch.__version__}, float32, median times in ms, ratios = torch's time / sdp's; {options.rounds} turns\n")
    head = [cell for layout in LAYOUTS for cell in (f"sdp {layout}", *PEERS)]
    print("| shape | threads | " + " | ".join(head) + " | GFLOP/s | of peak | torch's | (B,N,H,D) / (B,H,N,D) |")
    print("|---|---|" + "---|" * (len(head) + 4))
    rows = []
    for shape in options.shape:
        for threads in options.threads:
            rows.append(run_shape(torch, library, cpus, threads, tuple(map(int, shape.split(","))), options.rounds))
            print_row(rows[-1])
    print_backends(rows)
    print_call_cost(tool, cpus[0])
    if options.plot:
        plot(rows, options.plot)


main()
