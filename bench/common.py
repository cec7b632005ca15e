"""What the benchmarks share: where Attune is, the peers' Python, and figures taken in processes of their own."""
import ctypes
import functools
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(1, os.path.join(ROOT, "scripts"))
import environments  # noqa: E402
HOST = os.path.abspath(os.environ.get("SAMPLE_HOST", os.path.join(ROOT, "build", "sample_host")))
BUILD = os.path.dirname(HOST)
CACHE = os.environ.get("ATTUNE_BENCH_CACHE", os.path.expanduser("~/.cache/attune-bench"))
# What every peer draws: by Euler steps with guidance; the compared step is the first of SAMPLE_STEPS.
PROMPT, NEGATIVE, SEED, CFG, SAMPLE_STEPS = "a photo of a cat", "blurry", 1, 7.0, 20
REQUIREMENTS = os.path.join(HERE, "requirements.txt")


def add_threads_option(parser):
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: %(default)s")


def pin(threads):
    """Keep this process and its children on `threads` CPUs, and OpenMP's threads (torch, oneDNN) each on one."""
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    if len(cpus) < threads:
        sys.exit(f"{threads} threads are asked for, {len(cpus)} CPUs are allowed")
    os.sched_setaffinity(0, cpus)
    os.environ.update(OMP_NUM_THREADS=str(threads), OMP_PROC_BIND="close", OMP_PLACES="threads")


@functools.cache
def peer_python():
    """An interpreter with requirements.txt."""
    return environments.python_with(REQUIREMENTS, CACHE)


def run(command):
    """Run a command; the JSON object that it prints, its seconds and its peak resident bytes."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=output, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if child.returncode != 0:
            sys.exit(f"{' '.join(command)}: status {child.returncode}\n{errors.read()}")
        text = output.read()
        return json.loads(text[text.index("{"):]), seconds, usage.ru_maxrss * 1024


def build(*names):
    """Files of this folder's Makefile targets, built beside what is measured."""
    paths = [os.path.join(BUILD, "bench", name) for name in names]
    subprocess.run(["make", "-s", "-C", ROOT, "B=" + BUILD, *paths], check=True)
    return paths


@functools.cache
def peak_library():
    library = ctypes.CDLL(build("peak.so")[0])
    library.fma_peak.restype = ctypes.c_double
    return library


def fma_peak(cpus):
    """GFLOP/s of float32 multiply-adds on these CPUs together, now."""
    return peak_library().fma_peak(len(cpus), (ctypes.c_int * len(cpus))(*cpus))


def attune(arguments):
    """Run sample_host; as run."""
    return run([HOST, *arguments, "--json", "-q"])


def peer(script, *arguments):
    """Run a script of this folder with the peers' Python; as run."""
    return run([peer_python(), os.path.join(HERE, script), *arguments])


def median(values):
    return statistics.median(values)


def openvino_folder(model):
    """Where OpenVINO's form of a model lies: by its path."""
    return os.path.join(CACHE, "openvino2-" + hashlib.sha256(os.path.realpath(model).encode()).hexdigest()[:12])


def step_distance(after, reference):
    """The largest difference of latents after a step, the largest latent, and the most that the step changed one."""
    return {"distance": float(abs(after - reference["after"]).max()), "largest": float(abs(reference["after"]).max()),
            "change": float(abs(reference["after"] - reference["before"]).max())}
