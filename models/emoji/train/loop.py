"""The loop that both trainings share: report, save, stop on a signal, go on where it was stopped."""
import os
import signal
import sys
import time

import numpy as np
import torch

import places
import ranks
from muon import Muon

REPORT, SAVE_SECONDS = 100, 240  # steps, seconds
WARM_UP, EMA = 100, 0.998  # steps; how much of the running mean of the weights a step keeps


def set_parameters(net, values):
    """Give a network other parameters, a running mean say, in its own order."""
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), values, strict=True):
            parameter.copy_(value)


class Training:
    """A network's weights, their running mean, the optimizers and the step; the same in every rank. A kind of
    training adds `loss(rng, size)`: the loss, and what the report shows of it."""

    def __init__(self, net, group, options, matrices, rates, decay_from):
        """`matrices` are the parameters for Muon, the others are AdamW's; `rates` are their highest learning rates,
        which fall to zero in a line after the share `decay_from` of the training."""
        known = {id(p) for p in matrices}
        self.net, self.group, self.decay_from = net, group, decay_from
        self.seed, self.batch = options.seed, options.batch
        self.step, self.steps = 0, max(1, options.samples // options.batch)
        self.parameters = list(net.parameters())
        self.mean = [p.detach().clone() for p in self.parameters]
        rest = [p for p in self.parameters if id(p) not in known]
        adam = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=1e-4, fused=True)
        self.optimizers = list(zip((Muon(matrices, group), adam), rates))

    def save(self, path):
        """All that going on needs; the file is whole or the old one."""
        torch.save({"step": self.step, "weights": self.net.state_dict(), "mean": self.mean,
                    "optimizers": [o.state_dict() for o, _ in self.optimizers], "about": self.about()}, path + ".part")
        os.replace(path + ".part", path)

    def about(self):
        """What the weights belong to; a checkpoint that belongs to anything else is refused."""
        return {"seed": self.seed, "batch": self.batch}

    def describe(self):
        """What is learned, in a few words."""
        raise NotImplementedError

    def load(self, path):
        saved = torch.load(path)
        if saved["about"] != self.about():
            self.group.refuse(f"{path} is of another vocabulary, seed or batch: move it away to begin anew")
        self.net.load_state_dict(saved["weights"])
        self.step, self.mean = saved["step"], saved["mean"]
        for (optimizer, _), state in zip(self.optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)

    def advance(self):
        """One step; what the report shows of it."""
        level = 1 - self.step / self.steps
        share = min(1.0, (self.step + 1) / WARM_UP, level / (1 - self.decay_from))
        for optimizer, highest in self.optimizers:
            optimizer.zero_grad(set_to_none=False)
            for group in optimizer.param_groups:
                group["lr"] = highest * share
        # A generator of its own for each step: a training that was stopped goes on as if it had not been.
        rng = np.random.default_rng((self.seed, self.group.rank, self.step))
        loss, report = self.loss(rng, self.batch // self.group.count)
        loss.backward()
        grads = [p.grad for p in self.parameters]
        self.group.add(grads)
        torch._foreach_div_(grads, float(self.group.count))
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, _ in self.optimizers:
            optimizer.step()
        self.step += 1
        keep = min(EMA, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.parameters], 1 - keep)
        return [loss.item(), *report]

    def run(self, path, shown):
        """Until all samples are seen or a signal comes; `shown` names what the report shows."""
        if os.path.exists(path):
            self.load(path)
        first, seen, stop, talks = self.step, [], [], self.group.rank == 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.append(True))
        self.group.agree(False)  # all handlers are there
        if talks:
            print(f"{self.describe()}; step {first} of {self.steps}", flush=True)
        start = saved = time.monotonic()
        while self.step < self.steps and not self.group.agree(bool(stop)):
            seen.append(self.advance())
            now = time.monotonic()
            if talks and (self.step % REPORT == 0 or self.step == self.steps):
                rate = (now - start) / (self.step - first)
                figures = ", ".join(f"{name} {value:.3f}" for name, value in zip(shown, np.nanmean(seen, 0)))
                print(f"step {self.step} of {self.steps}, {rate / self.batch * 1e3:.2f} ms a sample, "
                      f"{rate * (self.steps - self.step) / 60:.0f} min left, {figures}", flush=True)
            if self.step % REPORT == 0:
                seen = []
            if talks and now - saved > SAVE_SECONDS:
                self.save(path)
                saved = now
        if talks:
            self.save(path)
            print(f"step {self.step} of {self.steps}: saved {path}", flush=True)
        if self.step < self.steps:
            self.group.refuse("stopped by a signal: start it again to go on")


def stage(name, arguments, make, checkpoint, shown, parser, batch, needs):
    """What the trainings' stages do: `make(options, group)` in one process for each CPU. `needs` names the stage
    that makes each file."""
    parser.add_argument("--seed", type=int, default=0, help="chooses samples and noise")
    parser.add_argument("--batch", type=places.positive, default=batch,
                        help="samples a step, of all processes; default: %(default)s")
    options = parser.parse_args(arguments)
    if ranks.within():
        make(options, ranks.Ranks()).run(places.work(checkpoint), shown)
        return
    count = len(os.sched_getaffinity(0))
    if options.batch % count:
        raise places.Refused(f"--batch {options.batch} is no multiple of {count}, the number of CPUs")
    places.needs(os.path.join(options.model, "model_index.json"), "give the folder of a model")
    for file, maker in needs.items():
        places.needs(places.work(file), f"run.py {maker} makes it")
    status = ranks.launch([os.path.join(places.HERE, "run.py"), name, *arguments])
    if status:
        sys.exit(status)
