"""Write the model's folder: the running means of the weights as float16, the lists of known words, and the
other files as the model that the training began with has them."""
import argparse
import os
import shutil

import safetensors.torch
import torch

import captions
import data
import loop
import network
import places
import train
from vocabulary import BACKGROUNDS, COLOURS

COPIED = ("model_index.json", "scheduler", "tokenizer", "vae", "unet/config.json", "text_encoder/config.json")
EMBEDDING = "text_model.embeddings.token_embedding.weight"


def tensors(net, words):
    """The weights of the text encoder and the UNet by the files' names for them."""
    text = {(k if k.startswith("text_model.") else "text_model." + k): v for k, v in net.text.state_dict().items()}
    text[EMBEDDING] = words.full(text[EMBEDDING])
    return {"text_encoder/model.safetensors": text,
            "unet/diffusion_pytorch_model.safetensors": dict(net.unet.state_dict())}


def word_lists(emoji):
    """known_words.txt and known_modifiers.txt."""
    frames = sorted({word for template in captions.TEMPLATES for word in template.replace("{}", "").split()})
    every_colour = list(dict.fromkeys([*COLOURS, *BACKGROUNDS]))
    return {
        "known_words.txt": [name for one in emoji for name in one.names],
        "known_modifiers.txt": [
            "# Words that may stand beside those of known_words.txt: colours, plain backgrounds, and the frames of the "
            "training's captions.",
            " ".join(every_colour), "background on", " ".join(frames)],
    }


def copy_rest(model, output):
    """The files that the training does not change."""
    for name in COPIED:
        source, target = os.path.join(model, name), os.path.join(output, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(source):
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)


def main(arguments):
    parser = argparse.ArgumentParser(prog="run.py export", description=__doc__)
    parser.add_argument("--model", default=places.MODEL, help="what the training began with; default: %(default)s")
    parser.add_argument("--output", default=os.path.join(places.WORK, "model"),
                        help="the folder to write; default: %(default)s")
    parser.add_argument("--vae", help="default: the VAE of --model")
    options = parser.parse_args(arguments)
    emoji = data.load()[0]
    words = network.Words(options.model, emoji)
    net = network.Network(options.model, words, False)
    saved = torch.load(places.needs(places.work(train.CHECKPOINT), "run.py train makes it"))
    if saved["about"]["emoji"] != [one.names for one in emoji]:
        raise places.Refused(f"{train.CHECKPOINT} was trained with another vocabulary")
    loop.set_parameters(net, saved["mean"])
    os.makedirs(options.output, exist_ok=True)
    if os.path.realpath(options.output) != os.path.realpath(options.model):
        copy_rest(options.model, options.output)
    if options.vae:
        shutil.copytree(options.vae, os.path.join(options.output, "vae"), dirs_exist_ok=True)
    size = 0
    for name, weights in tensors(net, words).items():
        path = os.path.join(options.output, name)
        half = {k: v.half().contiguous() for k, v in weights.items()}
        safetensors.torch.save_file(half, path, metadata={"format": "pt"})
        size += os.path.getsize(path)
    for name, lines in word_lists(emoji).items():
        with open(os.path.join(options.output, name), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    size += os.path.getsize(os.path.join(options.output, "vae", "diffusion_pytorch_model.safetensors"))
    print(f"weights of step {saved['step']}: {options.output}, {len(emoji)} emoji, {size / 1e6:.2f} MB of weights")
