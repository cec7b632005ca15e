"""Muon: momentum whose matrices are made orthogonal (K. Jordan et al., "Muon: an optimizer for hidden layers in
neural networks", 2024), for weights of two and more dimensions."""
import torch

MOMENTUM = 0.95
DECAY = 0.01
QUINTIC = (3.4445, -4.7750, 2.0315)  # the polynomial of Newton and Schulz's iteration that the authors tuned


def orthogonal(matrix):
    """Nearly the nearest orthogonal matrix, by five iterations."""
    a, b, c = QUINTIC
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    wide = x.size(0) <= x.size(1)
    x = x if wide else x.T
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x if wide else x.T).float()


class Muon(torch.optim.Optimizer):
    """The ranks share the matrices between them, and each gets all by one sum."""

    def __init__(self, parameters, ranks):
        super().__init__(parameters, {"lr": 0.0})
        self.ranks = ranks

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            whole = sum(p.numel() for p in group["params"])
            updates, before = [], 0
            for p in group["params"]:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
                momentum = self.state[p]["momentum"]
                momentum.lerp_(p.grad, 1 - MOMENTUM)
                mine = before * self.ranks.count // whole == self.ranks.rank
                before += p.numel()
                flat = p.grad.lerp(momentum, MOMENTUM).flatten(1)
                updates.append(orthogonal(flat) if mine else torch.zeros_like(flat))
            self.ranks.add(updates)
            for p, update in zip(group["params"], updates):
                tall = max(1, update.size(0) / update.size(1)) ** 0.5
                p.mul_(1 - group["lr"] * DECAY).add_(update.view_as(p), alpha=-group["lr"] * tall)
