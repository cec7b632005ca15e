"""Where things are: the model's folder, the working folder, Debian's files."""
import argparse
import os

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.dirname(HERE)
ROOT = os.path.dirname(os.path.dirname(MODEL))
WORK = os.environ.get("ATTUNE_TRAIN_WORK", os.path.join(ROOT, "build", "emoji-train"))
VOCABULARY = os.path.join(HERE, "vocabulary.txt")

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
ANNOTATIONS = "/usr/share/unicode/cldr/common/{}/en.xml"


def work(name):
    """The path of a file in the working folder, which is made where it is missing."""
    os.makedirs(WORK, exist_ok=True)
    return os.path.join(WORK, name)


class Refused(Exception):
    """Bad input, said in one line."""


def needs(path, how):
    """The path, of an earlier stage's file or of a Debian package's; Refused where it is missing."""
    if not os.path.exists(path):
        raise Refused(f"{path} is missing: {how}")
    return path


def positive(text):
    """An option's whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)
