"""Draw every emoji and list its variants. Writes pictures.npz (uint8 [emoji, 128, 128, 4]) and
variants.json ([emoji, colour or null, background] each), keeps the vocabulary beside them, and shows some variants in
variants.png."""
import argparse
import json
import os
import random
import shutil

import numpy as np
from PIL import Image

import pictures
import places
import vocabulary

COMBINED = 6  # variants of an emoji in both a colour and a background


def colours_of(one, names):
    """The colours that an emoji may take: those that do not make it another one ("green apple" of the red one)."""
    return [c for c in vocabulary.COLOURS if one.bare_names() and not any(
        f"{c} {bare}" in names and f"{c} {bare}" not in one.names for bare in one.bare_names())]


def variants(emoji, seed):
    """Every emoji plain, on each background, in each colour, and some of both."""
    rng = random.Random(seed)
    names = vocabulary.all_names(emoji)
    backgrounds = [b for b in vocabulary.BACKGROUNDS if b != "white"]
    found = []
    for index, one in enumerate(emoji):
        colours = colours_of(one, names)
        both = rng.sample([(c, b) for c in colours for b in backgrounds], COMBINED) if colours else []
        found += [(index, None, "white")]
        found += [(index, None, background) for background in backgrounds]
        found += [(index, colour, "white") for colour in colours]
        found += [(index, *pair) for pair in both]
    return found


def render(drawn, variant):
    """Float32 [128, 128, 3] in 0..255."""
    index, colour, background = variant
    picture = drawn[index]
    if colour:
        picture = pictures.recolour(picture, colour)
    return pictures.over(picture, background)


def load():
    """The emoji, their pictures and the variants."""
    how = "run.py data makes it"
    emoji = vocabulary.read(places.needs(places.work("vocabulary.txt"), how))
    with open(places.needs(places.work("variants.json"), how), encoding="utf-8") as file:
        listed = [tuple(v) for v in json.load(file)]
    return emoji, np.load(places.needs(places.work("pictures.npz"), how))["pictures"], listed


def main(arguments):
    parser = argparse.ArgumentParser(prog="run.py data", description=__doc__)
    parser.add_argument("--vocabulary", default=places.VOCABULARY, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="chooses what gets both a colour and a background")
    options = parser.parse_args(arguments)
    emoji, face = vocabulary.read(options.vocabulary), pictures.font()
    drawn = np.stack([pictures.draw(face, e.characters) for e in emoji])
    listed = variants(emoji, options.seed)
    if os.path.exists(places.work("latents.npy")):
        os.remove(places.work("latents.npy"))  # they are of other pictures
    shutil.copyfile(options.vocabulary, places.work("vocabulary.txt"))
    np.savez(places.work("pictures.npz"), pictures=drawn)
    with open(places.work("variants.json"), "w", encoding="utf-8") as file:
        json.dump(listed, file)
    # For the eye: the variants of every twentieth emoji.
    rows = [[v for v in listed if v[0] == index] for index in range(0, len(emoji), 20)]
    sheet = Image.new("RGB", (max(map(len, rows)) * 64, len(rows) * 64), "white")
    for y, row in enumerate(rows):
        for x, variant in enumerate(row):
            tile = Image.fromarray(render(drawn, variant).astype(np.uint8)).resize((64, 64))
            sheet.paste(tile, (x * 64, y * 64))
    sheet.save(places.work("variants.png"))
    print(f"{len(emoji)} emoji, {len(listed)} variants; {places.work('variants.png')} shows some")
