"""The contact sheet: known words and combinations with colours and backgrounds, drawn at random by the seed;
one picture of each, nothing is picked."""
import argparse
import os

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import data
import host
import places
from captions import on_background
from vocabulary import BACKGROUNDS, all_names

COLUMNS, LINES = 8, 3
MARGIN, LINE = 6, 12  # pixels
FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"


def prompts(emoji, rng, known, combined):
    """`known` names, then `combined` prompts: colours, backgrounds and both in turn."""
    names = [name for one in emoji for name in one.names]
    chosen = [names[i] for i in rng.permutation(len(names))[:known]]
    taken = all_names(emoji)
    paintable = [(colours, bare) for one in emoji if (colours := data.colours_of(one, taken))
                 for bare in one.bare_names()]
    backgrounds = [b for b in BACKGROUNDS if b != "white"]
    for k, index in enumerate(rng.permutation(len(paintable))[:combined]):
        colours, bare = paintable[index]
        text = bare if k % 3 == 1 else f"{colours[rng.integers(len(colours))]} {bare}"
        chosen.append(text if k % 3 == 0 else text + on_background(backgrounds[rng.integers(len(backgrounds))]))
    return chosen


def lines(draw, text, font, width):
    """The text in lines no wider than that."""
    found = [""]
    for word in text.split():
        longer = f"{found[-1]} {word}".strip()
        if found[-1] and draw.textlength(longer, font=font) > width:
            found.append(word)
        else:
            found[-1] = longer
    return found


def main(arguments):
    parser = argparse.ArgumentParser(prog="run.py sheet", description=__doc__)
    parser.add_argument("--model", default=places.MODEL, help="default: %(default)s")
    parser.add_argument("--known", type=places.positive, default=48, help="default: %(default)s")
    parser.add_argument("--combined", type=places.positive, default=16, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="chooses the prompts, and is the first picture's")
    parser.add_argument("--output", default=os.path.join(places.ROOT, "docs", "emoji_sheet.png"),
                        help="default: %(default)s")
    options = parser.parse_args(arguments)
    chosen = prompts(data.load()[0], np.random.default_rng(options.seed), options.known, options.combined)
    pictures = host.draw(options.model, chosen, options.seed)
    side = pictures.shape[1]
    rows = -(-len(chosen) // COLUMNS)
    height = rows * (side + MARGIN + LINES * LINE) + MARGIN
    sheet = Image.new("RGB", (COLUMNS * (side + MARGIN) + MARGIN, height), "#e8e8e8")
    font = ImageFont.truetype(places.needs(FONT, "apt-get install fonts-dejavu-core"), LINE - 2)
    draw = ImageDraw.Draw(sheet)
    for k, (text, picture) in enumerate(zip(chosen, pictures)):
        x = MARGIN + k % COLUMNS * (side + MARGIN)
        y = MARGIN + k // COLUMNS * (side + MARGIN + LINES * LINE)
        sheet.paste(Image.fromarray(picture), (x, y))
        for row, line in enumerate(lines(draw, text, font, side)[:LINES]):
            draw.text((x, y + side + row * LINE), line, fill="black" if k < options.known else "#a00000", font=font)
    sheet.save(options.output, optimize=True)
    print(f"{len(chosen)} pictures: {options.output}")
