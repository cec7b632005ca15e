#!/usr/bin/env python3
"""One stage of the training of the embedded model: run.py STAGE [options]; run.py STAGE --help tells more.

The stages, in order:
  data        draw the emoji and list their variants
  vae         train a VAE (hardly ever: the model's own serves for every emoji)
  latents     encode the variants with the model's VAE
  train       train the text encoder and the UNet (hours; goes on where it was stopped)
  export      write the model's folder and its lists of known words
  neighbours  draw known prompts and count those whose nearest training emoji is the right one
  sheet       draw the contact sheet
A virtual environment with requirements.txt is made on first use (about 5 GB), in $ATTUNE_TRAIN_CACHE or
~/.cache/attune-train. Files between the stages lie in $ATTUNE_TRAIN_WORK or build/emoji-train. neighbours and sheet
draw with $SAMPLE_HOST or build/sample_host.
"""
import importlib
import os
import sys

import places

sys.path.insert(1, os.path.join(places.ROOT, "scripts"))
import environments  # noqa: E402

STAGES = ("data", "vae", "latents", "train", "export", "neighbours", "sheet")
REQUIREMENTS = os.path.join(places.HERE, "requirements.txt")
CACHE = os.environ.get("ATTUNE_TRAIN_CACHE", os.path.expanduser("~/.cache/attune-train"))


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip())
        return 0 if len(sys.argv) > 1 else 2
    if sys.argv[1] not in STAGES:
        print(f"run.py: {sys.argv[1]} is no stage; the stages are {', '.join(STAGES)}", file=sys.stderr)
        return 2
    try:
        python = environments.python_with(REQUIREMENTS, CACHE)
        if python != sys.executable:
            os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])
        importlib.import_module(sys.argv[1]).main(sys.argv[2:])
    except (places.Refused, OSError) as error:
        print(f"run.py {sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
