"""What the training says of a picture."""
from vocabulary import BACKGROUNDS, COLOURS

TEMPLATES = ("a {}", "the {}", "an {}", "{} emoji", "a picture of a {}", "an emoji of a {}", "{} icon",
             "a drawing of a {}")


def on_background(colour):
    return f" on a{'n' if colour == 'orange' else ''} {colour} background"


def caption(emoji, variant, rng, own_colour):
    """A caption of a variant. `rng` is numpy's; `own_colour` is the colour that dominates the emoji and
    may be said of it, or None."""
    _, colour, background = variant

    def one_of(words):
        return words[rng.integers(len(words))]

    if colour:
        text = f"{colour} {one_of(emoji.bare_names())}"
    else:
        # The CLDR name as often as all everyday words together.
        text = emoji.names[0] if len(emoji.names) == 1 or rng.random() < 0.5 else one_of(emoji.names[1:])
        kind = rng.random()
        if kind < 0.08 and own_colour:
            text = f"{own_colour} {one_of(emoji.bare_names())}"
        elif 0.08 <= kind < 0.16 and emoji.keywords:
            some = rng.permutation(emoji.keywords)[:rng.integers(1, 4)]
            text = ", ".join([text, *(k for k in some if k != text)])
    if rng.random() < 0.3:
        text = one_of(TEMPLATES).format(text)
    if background != "white":
        text += on_background(background) if rng.random() < 0.8 else f", {background} background"
    elif rng.random() < 0.04:
        text += on_background(background)
    return text


def phrases(emoji):
    """Text with every word that a caption can hold."""
    yield from (template.format("") for template in TEMPLATES)
    yield "on a an background, " + " ".join([*COLOURS, *BACKGROUNDS])
    for one in emoji:
        yield from one.names
        yield from one.keywords
