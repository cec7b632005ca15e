"""The training pictures: emoji of Debian's font on 128 x 128 pixels, recoloured, on plain backgrounds."""
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import places
from vocabulary import BACKGROUNDS

SIZE = 128
STRIKE = 109  # the one size in pixels of the font's bitmaps, which are 136 x 128
GLYPH = (120, 113)  # the size at which a bitmap stands in the picture

# Hue in degrees, factor of the saturation, factor of the value.
PAINT = {
    "red": (4, 1.0, 1.0), "orange": (28, 1.0, 1.0), "yellow": (48, 1.0, 1.05), "green": (125, 0.9, 0.85),
    "blue": (210, 0.95, 0.95), "purple": (283, 0.85, 0.85), "pink": (338, 0.6, 1.05), "brown": (22, 0.75, 0.55),
    "black": (0, 0.15, 0.25), "white": (0, 0.08, 1.0),
}
# Where a hue that dominates a picture has its centre.
HUES = {"red": 2, "orange": 30, "yellow": 46, "green": 110, "blue": 210, "purple": 280, "pink": 338, "brown": 20}


def font():
    path = places.needs(places.FONT, "apt-get install fonts-noto-color-emoji")
    return ImageFont.truetype(path, STRIKE, layout_engine=ImageFont.Layout.BASIC)


def draw(face, characters):
    """One emoji as uint8 [128, 128, 4], centred; Refused where the font has no single picture of it."""
    left, _, right, _ = face.getbbox(characters)
    sheet = Image.new("RGBA", (320, 160))
    ImageDraw.Draw(sheet).text((10, 10), characters, font=face, embedded_color=True)
    box = sheet.getbbox()
    if box is None or right - left > 150:
        raise places.Refused(f"{characters}: the font has no picture")
    glyph = sheet.crop((10 + left, 10, 10 + left + 136, 138))
    # Premultiplied, so that the colour of transparent pixels does not bleed in.
    pixels = np.asarray(glyph, np.float32) / 255
    pixels = np.concatenate([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]], -1)
    planes = [Image.fromarray(pixels[..., c].copy()).resize(GLYPH, Image.Resampling.LANCZOS) for c in range(4)]
    pixels = np.stack([np.asarray(plane) for plane in planes], -1).clip(0, 1)
    pixels[..., :3] /= np.maximum(pixels[..., 3:], 1e-4)
    picture = np.zeros((SIZE, SIZE, 4), np.float32)
    top, side = (SIZE - GLYPH[1]) // 2, (SIZE - GLYPH[0]) // 2
    picture[top:top + GLYPH[1], side:side + GLYPH[0]] = pixels.clip(0, 1)
    return (picture * 255 + 0.5).astype(np.uint8)


def _hsv(picture):
    """Hue in degrees, saturation and value in 0..1 of uint8 [..., 3]."""
    hsv = np.asarray(Image.fromarray(np.ascontiguousarray(picture[..., :3])).convert("HSV"), np.float32) / 255
    return hsv[..., 0] * 360, hsv[..., 1], hsv[..., 2]


def dominant(picture):
    """The word of the colour that more than four tenths of the opaque pixels have, or None."""
    hue, saturation, value = (plane[picture[..., 3] > 127] for plane in _hsv(picture))
    bands = [
        (value < 0.28, "black"),
        ((saturation < 0.18) & (value > 0.85), "white"),
        ((saturation < 0.18) & (value > 0.3), "gray"),
        (saturation < 0.18, "black"),
        ((hue < 12) | (hue >= 345), "red"),
        ((hue < 38) & (value < 0.7), "brown"),
        (hue < 38, "orange"),
        ((hue < 68) & (value > 0.6), "yellow"),
        (hue < 68, "brown"),
        (hue < 165, "green"),
        (hue < 255, "blue"),
        (hue < 300, "purple"),
    ]
    words = np.select([b for b, _ in bands], [w for _, w in bands], "pink")
    names, counts = np.unique(words, return_counts=True)
    most = counts.argmax()
    return str(names[most]) if counts[most] > 0.4 * hue.size else None


def recolour(picture, colour):
    """Paint a picture in a colour. Where one hue dominates only that is changed (the leaf of an apple stays green);
    else all of it is tinted. The colour that dominates already leaves a picture as it is."""
    own = dominant(picture)
    if own == colour:
        return picture
    hue, saturation, value = _hsv(picture)
    new_hue, more_saturation, more_value = PAINT[colour]
    if own in HUES:
        away = (hue - HUES[own] + 180) % 360 - 180
        weight = np.clip((55 - np.abs(away)) / 15, 0, 1) * np.clip((saturation - 0.12) / 0.15, 0, 1)
        drift = away * 0.25  # shades within the hue stay apart
        source = saturation
    else:
        weight = np.full_like(hue, 0.9)
        drift = 0.0
        source = np.maximum(saturation, 0.75)
    painted_hue = np.where(more_saturation > 0.2, (new_hue + drift) % 360, hue)
    painted_saturation = np.clip(source * more_saturation, 0, 1)
    painted_value = value * more_value
    if own == "brown" and colour not in ("brown", "black"):
        painted_value = painted_value * 1.45
    if own == "black" and colour != "black":
        painted_value = painted_value * 0.6 + 0.35
    if colour == "white":
        painted_value = 1 - (1 - value) * 0.35
    painted = np.stack([painted_hue / 360, painted_saturation, painted_value.clip(0, 1)], -1)
    painted = Image.fromarray((painted * 255 + 0.5).astype(np.uint8), "HSV").convert("RGB")
    rgb = picture[..., :3] * (1 - weight[..., None]) + np.asarray(painted, np.float32) * weight[..., None]
    return np.concatenate([(rgb + 0.5).clip(0, 255).astype(np.uint8), picture[..., 3:]], -1)


def channels_first(batch):
    """What the VAE takes, float32 [n, 3, height, width] in -1..1, of float32 [n, height, width, 3] in 0..255."""
    return batch.transpose(0, 3, 1, 2) / 127.5 - 1


def over(picture, background):
    """Float32 [128, 128, 3] in 0..255: the picture on a named background."""
    alpha = picture[..., 3:].astype(np.float32) / 255
    return picture[..., :3] * alpha + np.array(BACKGROUNDS[background], np.float32) * (1 - alpha)
