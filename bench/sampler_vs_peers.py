"""
Stable Diffusion 1.5 with random weights: Attune beside diffusers (torch) and OpenVINO, all float32: seconds and
peak memory of the text encoder, a UNet step, the VAE, a cold start, and a whole run; and whether one step is equal.

Every figure is a process of its own, and the peers take turns. Each is appended to the results as a line of JSON
when it is made, so a run that was stopped, or that --minutes ended (status 3), goes on where it was.
"""
import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time

import common

PEERS = ["attune", "diffusers", "openvino"]
PARTS = {"text": "text encoder, 2 × 77 tokens, and the text's keys and values", "unet": "UNet step with guidance (batch 2)", "vae": "VAE decode"}
COLD_SIZE = "256x256"
GIB = 1 << 30
MORE_TO_DO = 3
FIRST_GUESS = 90.0  # seconds that a figure takes, before one of its kind is made


def make_folder(folder, script, *arguments):
    """The folder that a script makes, made if it is not there; it appears whole or not at all."""
    if os.path.exists(folder):
        return
    print(f"making {folder}", file=sys.stderr)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    part = tempfile.mkdtemp(dir=os.path.dirname(folder))
    try:
        common.peer(script, *arguments, part)
        os.rename(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def build_id():
    """A hash of what is measured: figures of two builds are never mixed."""
    digest = hashlib.sha256()
    for name in ("sample_host", "libattune.so", "attune-cpu.so", "attune-sampler-cpu.so"):
        path = common.HOST if name == "sample_host" else os.path.join(common.BUILD, name)
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:16]


class Results:
    """The figures of one setting in a file of JSON lines that may hold others' too."""

    def __init__(self, path, settings):
        self.path, self.settings, self.figures = path, settings, []
        if os.path.exists(path):
            with open(path, encoding="utf-8") as lines:
                figures = [json.loads(line) for line in lines]
            self.figures = [figure for figure in figures if figure["settings"] == settings]

    def add(self, figure):
        self.figures.append(figure)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**figure, "settings": self.settings}) + "\n")

    def of(self, name, peer):
        return [figure for figure in self.figures if (figure["figure"], figure["peer"]) == (name, peer)]


class Bench:
    """How each figure is made."""

    def __init__(self, options, folder):
        self.folder, self.repeats, self.steps = folder, str(options.repeats), str(options.steps)
        self.model, self.size, self.threads = options.model, options.size, str(options.threads)
        self.cpus = sorted(os.sched_getaffinity(0))

    def peer(self, peer, figure, *arguments, size=None):
        """Run a peer's script; arguments are what follows the common ones."""
        script = ["attune_parts.py"] if peer == "attune" else ["peers.py", peer]
        return common.peer(*script, figure, self.model, size or self.size, self.threads, *arguments)

    def part(self, peer, part):
        before = common.fma_peak(self.cpus)
        reply, _, peak = self.peer(peer, part, self.repeats)
        return {"seconds": reply["seconds"], "peak": peak, "flops": reply.get("flops"),
                "fma": [before, common.fma_peak(self.cpus)]}

    def cold(self, peer):
        """From the start of the process to the end of the first step of a small picture."""
        start = time.time()
        reply, _, peak = self.peer(peer, "cold", size=COLD_SIZE)
        return {"seconds": [reply["ended"] - start], "peak": peak}

    def whole(self, peer):
        """From the start of the process to its end, the PNG included."""
        png = os.path.join(self.folder, f"{peer}.png")
        if peer != "attune":
            _, seconds, peak = self.peer(peer, "whole", self.steps, png)
            return {"seconds": [seconds], "peak": peak}
        width, height = self.size.split("x")
        reply, seconds, peak = common.attune([
            "txt2img", common.PROMPT, "--negative-prompt", common.NEGATIVE, "--sampler", "Euler", "--steps", self.steps,
            "--cfg-scale", str(common.CFG), "--seed", str(common.SEED), "--model", self.model, "--width", width,
            "--height", height, "--threads", self.threads, "-o", png])
        os.remove(png)
        return {"seconds": [seconds], "peak": peak, "phases": reply["seconds"]}

    def step(self, peer):
        """How far a step is from that of diffusers, which is made once per invocation."""
        reference = os.path.join(self.folder, "reference.npz")
        if not os.path.exists(reference):
            self.peer("diffusers", "reference", reference)
        return self.peer(peer, "step", reference)[0]

    def make(self, name, peer):
        start = time.monotonic()
        figure = self.part(peer, name) if name in PARTS else getattr(self, name)(peer)
        return {"figure": name, "peer": peer, **figure, "took": time.monotonic() - start}


def plan(rounds):
    """(round, figure, peer) in the order of making; each round another peer begins."""
    yield from ((0, "step", peer) for peer in PEERS if peer != "diffusers")
    for index in range(rounds):
        for name in (*PARTS, "cold", "whole"):
            for turn in range(len(PEERS)):
                yield index, name, PEERS[(index + turn) % len(PEERS)]


def measure(options, results, began):
    """Make what is missing, at least one figure, while there is time; whether all is done."""
    before = len(results.figures)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, folder)
        for index, name, peer in plan(options.rounds):
            made = results.of(name, peer)
            if len(made) > index:
                continue
            alike = [figure["took"] for figure in results.figures if figure["figure"] == name]
            expected = max(alike, default=FIRST_GUESS)
            late = options.minutes and time.monotonic() - began + expected > 60 * options.minutes
            if late and len(results.figures) > before:
                return False
            results.add(bench.make(name, peer))
            print(f"round {index + 1}: {name} by {peer}, {results.figures[-1]['took']:.0f} s", file=sys.stderr)
    return True


def table_row(title, values, form):
    """One line: each peer's value and its ratio to Attune's; empty where a peer has none."""
    cells = [form.format(value) if value else "" for value in values.values()]
    ratios = [f"{values[peer] / values['attune']:.2f}" if values[peer] and values["attune"] else ""
              for peer in PEERS[1:]]
    return "| " + " | ".join([title, *cells, *ratios]) + " |"


def shares(made, seconds):
    """Each peer's share of the FMA peak of the same minutes, in per cent; diffusers counts a part's operations."""
    flops = next((f["flops"] for f in made["diffusers"] if f.get("flops")), 0)
    peaks = [peak for figures in made.values() for f in figures for peak in f.get("fma", [])]
    return {peer: 1e-7 * flops / (seconds[peer] * common.median(peaks)) if flops and seconds[peer] else 0
            for peer in PEERS}


def print_table(options, results):
    print(f"\n{options.size}, {options.threads} threads, float32, {options.rounds} rounds in turns; medians; ratio above 1:"
          " Attune is faster or smaller\n")
    print("| | Attune | diffusers | OpenVINO | diffusers / Attune | OpenVINO / Attune |\n|---|---|---|---|---|---|")
    titles = {**PARTS, "cold": f"cold start: the process's start to the end of the first step, {COLD_SIZE}",
              "whole": f"whole run, {options.steps} steps, start to PNG"}
    for name, title in titles.items():
        made = {peer: results.of(name, peer) for peer in PEERS}
        seconds = {peer: common.median([s for f in made[peer] for s in f["seconds"]] or [0]) for peer in PEERS}
        print(table_row(title + ", seconds", seconds, "{:.3f}"))
        if name in PARTS:
            cells = [f"{share:.0f} %" if share else "" for share in shares(made, seconds).values()]
            print("| " + " | ".join(["… share of the FMA peak", *cells, "", ""]) + " |")
        peaks = {peer: common.median([f["peak"] / GIB for f in made[peer]] or [0]) for peer in PEERS}
        print(table_row("… peak memory, GiB", peaks, "{:.2f}"))
    print("\nA peer's process for a part holds that part alone; Attune's opens the whole model and a session.\n")


def report_step(options, results):
    """Print how far steps were from diffusers'; whether Attune's is near enough."""
    equal = True
    for peer in ("attune", "openvino"):
        for f in results.of("step", peer):
            equal = equal and (peer != "attune" or f["distance"] <= options.tolerance)
            print(f"latents after the first of {common.SAMPLE_STEPS} steps, {peer} and diffusers: largest difference"
                  f" {f['distance']:.1e}: {f['distance'] / f['largest']:.1e} of the largest latent ({f['largest']:.1f}),"
                  f" {f['distance'] / f['change']:.1e} of the largest change ({f['change']:.1f})")
    return equal


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_threads_option(parser)
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is made; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=2, help="timed calls per part and process, after one that is"
                        " not; default: %(default)s")
    parser.add_argument("--steps", type=int, default=4, help="of a whole run; default: %(default)s")
    parser.add_argument("--size", default="512x512", help="WIDTHxHEIGHT; default: %(default)s")
    parser.add_argument("--model", help="a diffusers folder; default: random weights, made on first use")
    parser.add_argument("--results", default=os.path.join(common.CACHE, "results.jsonl"), help="default: %(default)s")
    parser.add_argument("--minutes", type=float, help="begin nothing that would end later than this")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest difference of a latent after"
                        " Attune's step; default: %(default)s")
    return parser.parse_args()


def main():
    options, began = parse_options(), time.monotonic()
    common.pin(options.threads)
    if not options.model:
        options.model = os.path.join(common.CACHE, "sd15-random")
        make_folder(options.model, "random_model.py")
    options.model = os.path.abspath(options.model)
    make_folder(common.openvino_folder(options.model), "peers.py", "convert", options.model)
    settings = {name: getattr(options, name) for name in ("threads", "repeats", "steps", "size", "model")}
    results = Results(options.results, {**settings, "build": build_id()})
    done = measure(options, results, began)
    print_table(options, results)
    if not report_step(options, results):
        sys.exit("Attune's step is not diffusers'")
    if not done:
        print("not all figures are made: run the same command again", file=sys.stderr)
        sys.exit(MORE_TO_DO)


main()
