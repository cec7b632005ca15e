"""Draw known prompts, chosen at random, and count those whose nearest training emoji is the right one. The
distance is the squared difference of colours at 32 x 32 pixels, the least over shifts by up to one of them (4 of the
picture's) in each direction."""
import argparse

import numpy as np
from PIL import Image

import data
import host
import pictures
import places

SIDE = 32
SHIFTS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]


def small(picture):
    """Float32 [32, 32, 3] of a picture of 128 x 128."""
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)


def nearest(drawn, known):
    """Of each drawn picture the indices of known ones, nearest first. Both uint8 [n, 128, 128, 3]; a shift moves what
    stands at the edge (the background) in."""
    ours = np.stack([small(p) for p in drawn]).reshape(len(drawn), -1)
    best = np.full((len(drawn), len(known)), np.inf, np.float32)
    for y, x in SHIFTS:
        moved = np.stack([np.pad(small(p), ((1, 1), (1, 1), (0, 0)), "edge")[1 + y:1 + y + SIDE, 1 + x:1 + x + SIDE]
                          for p in known]).reshape(len(known), -1)
        distance = (ours ** 2).sum(1)[:, None] + (moved ** 2).sum(1)[None] - 2 * ours @ moved.T
        best = np.minimum(best, distance)
    return best.argsort(1)


def main(arguments):
    parser = argparse.ArgumentParser(prog="run.py neighbours", description=__doc__)
    parser.add_argument("--model", default=places.MODEL, help="default: %(default)s")
    parser.add_argument("--prompts", type=places.positive, default=200, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="chooses the prompts, and is the first picture's")
    options = parser.parse_args(arguments)
    emoji, drawn, _ = data.load()
    # Each word once; more than there are is all of them.
    words = [(name, index) for index, one in enumerate(emoji) for name in one.names]
    chosen = [words[i] for i in np.random.default_rng(options.seed).permutation(len(words))[:options.prompts]]
    plain = np.stack([(pictures.over(p, "white") + 0.5).astype(np.uint8) for p in drawn])
    made = host.draw(options.model, [name for name, _ in chosen], options.seed)
    order = nearest(made, plain)
    right = 0
    for (name, index), found in zip(chosen, order):
        rank = int(np.where(found == index)[0][0])
        right += rank == 0
        if rank:
            print(f"{name}: nearest is {emoji[found[0]].names[0]}, the right one is number {rank + 1}")
    print(f"{right} of {len(chosen)} right, {100 * right / len(chosen):.1f} %")
