#!/usr/bin/env python3
"""`make check-train`: every stage of models/emoji/train once, with three emoji and a handful of steps, so the pictures
mean nothing. Installs the training's environment on first use (5 GB), hence it is no part of `make check`."""
import os
import re
import signal
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TRAIN = os.path.join(ROOT, "models", "emoji", "train")
MODEL = os.path.dirname(TRAIN)
RUN = [sys.executable, os.path.join(TRAIN, "run.py")]

# Within the training's environment: three steps at once are three steps with a stop between them, bit for bit.
RESUMED = """
import argparse, sys, torch
import ranks, train
options = argparse.Namespace(model=sys.argv[1], bfloat16=True, seed=0, batch=8, samples=80)
def after(steps, path=None):
    training = train.Diffusion(options, ranks.Ranks())
    if path:
        training.load(path)
    while training.step < steps:
        training.advance()
    return training
after(2).save(sys.argv[2])
whole, resumed, fewer = after(3), after(3, sys.argv[2]), after(2)
equal = lambda a, b: all(torch.equal(p, q) for p, q in zip(a.parameters + a.mean, b.parameters + b.mean))
assert equal(whole, resumed), "a resumed training differs"
assert not equal(whole, fewer), "a step changes nothing"
"""

# Whitening leaves what is decoded as it was, and makes the latents white.
WHITE = """
import sys, diffusers, numpy as np, torch
import data, pictures, vae
net = diffusers.AutoencoderKL.from_pretrained(sys.argv[1], subfolder="vae", torch_dtype=torch.float32)
drawn = data.load()[1]
plain = torch.from_numpy(np.stack([pictures.over(p, "white") for p in drawn])).permute(0, 3, 1, 2) / 127.5 - 1
with torch.no_grad():
    net.quant_conv.weight[:4] *= 3
    net.quant_conv.bias[:4] += 1
    before = net.decode(net.encode(plain).latent_dist.mean).sample
    vae.whiten(net, drawn)
    latents = net.encode(plain).latent_dist.mean
    after = net.decode(latents).sample
assert (before - after).abs().max() < 1e-2, (before - after).abs().max()
flat = (latents * net.config.scaling_factor).permute(1, 0, 2, 3).reshape(4, -1)
assert (torch.cov(flat) - torch.eye(4)).abs().max() < 1e-2 and flat.mean(1).abs().max() < 1e-2
"""

# diffusers loads the folder and draws; the text encoder of the folder is that of the checkpoint's running mean.
LOADS = """
import sys, diffusers, torch
import data, network, places
folder, model = sys.argv[1:]
pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
pipe.set_progress_bar_config(disable=True)
picture = pipe("dog", num_inference_steps=2).images[0]
assert picture.size == (128, 128), picture.size
words = network.Words(model, data.load()[0])
net = network.Network(model, words, False)
with torch.no_grad():
    for parameter, mean in zip(net.parameters(), torch.load(places.work("checkpoint.pt"))["mean"], strict=True):
        parameter.copy_(mean)
    for text in ("dog", "red heart on a blue background", "xylophone"):
        ours = net.text(words.rows(text)[None]).last_hidden_state
        ids = pipe.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
        theirs = pipe.text_encoder(ids).last_hidden_state
        assert (ours - theirs).abs().max() < 0.02 * ours.abs().max(), text
"""

# A picture that is shifted by four pixels is still nearest to itself.
NEAREST = """
import numpy as np
import data, neighbours, pictures
plain = np.stack([(pictures.over(p, "white") + 0.5).astype(np.uint8) for p in data.load()[1]])
found = neighbours.nearest(np.roll(plain, (4, -4), (1, 2)), plain)[:, 0]
assert found.tolist() == list(range(len(plain))), found
"""


def stage(*arguments, status=0, says=""):
    """Run a stage, which must end so and say so; what it said."""
    done = subprocess.run([*RUN, *arguments], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode != status or says not in said or "Traceback" in said:
        sys.exit(f"run.py {' '.join(arguments)}: status {done.returncode}, expected {status} and \"{says}\":\n{said}")
    print(f"run.py {' '.join(arguments)}: as expected", flush=True)
    return said


def within(python, script, *arguments):
    """Run a script in the training's environment and folder; it must succeed."""
    done = subprocess.run([python, "-c", script, *arguments], cwd=TRAIN, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def write(name, text):
    path = os.path.join(os.environ["ATTUNE_TRAIN_WORK"], name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def stops(checkpoint):
    """A signal ends a training, with its checkpoint written and a status that says so."""
    with subprocess.Popen([*RUN, "train", "--batch", "8", "--samples", "8000"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as training:
        for line in training.stdout:
            if "step 0 of 1000" in line:
                training.send_signal(signal.SIGTERM)
        errors = training.stderr.read()
    if training.returncode != 1 or "start it again" not in errors or not os.path.exists(checkpoint):
        sys.exit(f"train: status {training.returncode} after SIGTERM:\n{errors}")


def main():
    sys.path.insert(0, TRAIN)
    import run  # it adds the folder of environments
    import environments
    # The same processes everywhere.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    python = environments.python_with(run.REQUIREMENTS, run.CACHE)
    with tempfile.TemporaryDirectory() as work:
        os.environ["ATTUNE_TRAIN_WORK"] = work
        checkpoint, folder = os.path.join(work, "checkpoint.pt"), os.path.join(work, "model")

        stage("dream", status=2, says="no stage")
        stage("train", status=1, says="run.py data makes it")
        stage("data", "--vocabulary", write("bad.txt", "no such emoji\n"), status=1, says="no emoji named")
        stage("data", "--vocabulary", write("twice.txt", "dog face: dog\nrocket: dog\n"), status=1, says="twice")
        stage("data", "--vocabulary", write("self.txt", "rocket: rocket\n"), status=1, says="twice")
        stage("data", "--vocabulary", write("empty.txt", "# none\n"), status=1, says="no emoji is named")
        stage("data", "--vocabulary", os.path.join(work, "none.txt"), status=1, says="none.txt is missing")
        three = write("three.txt", "# three\ndog face: dog, puppy\nred heart: heart\nrocket\n")
        stage("data", "--vocabulary", three, says="3 emoji")
        stage("train", status=1, says="run.py latents makes it")

        within(python, WHITE, MODEL)
        stage("vae", "--samples", "64", "--batch", "8", says="wrote")
        stage("latents", "--vae", os.path.join(work, "vae"), says="latents")
        stage("latents", "--vae", os.path.join(work, "nowhere"), status=1, says="the folder of a VAE")
        spread = float(re.search(r"standard deviation ([\d.]+)", stage("latents"))[1])
        if not 0.5 < spread < 2:
            sys.exit(f"the latents' standard deviation is {spread}")

        stage("train", "--batch", "7", status=1, says="no multiple")
        stage("train", "--samples", "0", status=2, says="no whole number")
        stage("train", "--model", work, "--batch", "8", status=1, says="the folder of a model")
        stops(checkpoint)
        os.remove(checkpoint)
        stage("train", "--batch", "8", "--samples", "64", says="step 8 of 8: saved")
        stage("train", "--batch", "8", "--samples", "80", "--no-bfloat16", says="step 8 of 10\n")
        stage("train", "--batch", "16", status=1, says="another vocabulary, seed or batch")
        within(python, RESUMED, MODEL, os.path.join(work, "two.pt"))

        stage("export", "--vae", os.path.join(work, "vae"), says="weights of step 10")
        stage("export", says="3 emoji")
        with open(os.path.join(folder, "known_words.txt"), encoding="utf-8") as file:
            if file.read().split("\n") != ["dog face", "dog", "puppy", "red heart", "heart", "rocket", ""]:
                sys.exit("known_words.txt is another list")
        within(python, LOADS, folder, MODEL)
        within(python, NEAREST)
        stage("neighbours", "--model", folder, "--prompts", "3", says="of 3 right")
        sheet = os.path.join(work, "sheet.png")
        stage("sheet", "--model", folder, "--known", "3", "--combined", "3", "--output", sheet, says="6 pictures")
        stage("data", "--vocabulary", write("other.txt", "rocket\nalien\n"), says="2 emoji")
        stage("export", status=1, says="another vocabulary")
        stage("train", status=1, says="run.py latents makes it")
    print("every stage did its part")


if __name__ == "__main__":
    main()
