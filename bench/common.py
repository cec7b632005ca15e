"""What the benchmarks share: where the program is, how a figure is taken in a process of its own."""
import json
import os
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HOST = os.environ.get("SAMPLE_HOST", os.path.join(ROOT, "build", "sample_host"))


def attune(arguments):
    """Run sample_host with --json and return its object."""
    done = subprocess.run([HOST, *arguments, "--json", "-q"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{HOST} {' '.join(arguments)}: status {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def peer(script, arguments):
    """Run a benchmark script as a peer (--peer) in its own process; its last line is JSON."""
    done = subprocess.run([sys.executable, script, "--peer", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{script}: status {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def median(values):
    return statistics.median(values)
