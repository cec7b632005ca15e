"""Processes of one thread each that train together: on few cores they are faster than one process with threads."""
import os
import signal
import subprocess
import sys
import tempfile
import time

import torch
import torch.distributed

import places

GRACE = 20  # seconds for the other ranks to end once one has failed


class Ranks:
    """This process among those of launch(); alone where it was started by hand."""

    def __init__(self):
        self.rank = int(os.environ.get("ATTUNE_TRAIN_RANK", "0"))
        self.count = int(os.environ.get("ATTUNE_TRAIN_RANKS", "1"))
        torch.set_num_threads(1)
        if self.count > 1:
            meeting = os.environ["ATTUNE_TRAIN_MEETING"]
            torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=self.rank,
                                                 world_size=self.count)

    def add(self, tensors):
        """Give each tensor its sum over all ranks."""
        if self.count == 1:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        torch.distributed.all_reduce(flat)
        at = 0
        for t in tensors:
            t.copy_(flat[at:at + t.numel()].view(t.shape))
            at += t.numel()

    def refuse(self, why):
        """End all ranks, which all come here; one of them says why."""
        if self.rank == 0:
            raise places.Refused(why)
        sys.exit(1)

    def agree(self, wish):
        """Whether any rank has the wish."""
        flag = torch.tensor(float(wish))
        if self.count > 1:
            torch.distributed.all_reduce(flag)
        return bool(flag > 0)


def within():
    """Whether this process is one of launch()'s."""
    return "ATTUNE_TRAIN_RANK" in os.environ


def launch(arguments):
    """Run this stage once for each CPU, pinned; the first exit status that is not 0."""
    cpus, children = sorted(os.sched_getaffinity(0)), []
    for number in (signal.SIGINT, signal.SIGTERM):  # the ranks save and end by themselves
        signal.signal(number, lambda number, _: [child.send_signal(number) for child in children])
    with tempfile.TemporaryDirectory() as folder:
        for rank, cpu in enumerate(cpus):
            environment = dict(os.environ, ATTUNE_TRAIN_RANK=str(rank), ATTUNE_TRAIN_RANKS=str(len(cpus)),
                               ATTUNE_TRAIN_MEETING=os.path.join(folder, "meeting"), OMP_NUM_THREADS="1",
                               GLOO_SOCKET_IFNAME="lo")
            children.append(subprocess.Popen([sys.executable, *arguments], env=environment,
                                             preexec_fn=lambda cpu=cpu: os.sched_setaffinity(0, {cpu})))
        failed = None
        while any(child.poll() is None for child in children):
            if failed is None and any(child.poll() for child in children):
                failed = time.monotonic()
            if failed is not None and time.monotonic() - failed > GRACE:  # the others would wait for it for ever
                for child in children:
                    child.kill()
            time.sleep(0.1)
    return next((child.returncode for child in children if child.returncode), 0)
