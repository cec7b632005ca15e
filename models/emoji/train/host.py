"""Pictures as a user gets them: drawn by sample_host with its own defaults (20 steps of Euler a, CFG scale 7)."""
import json
import os
import subprocess

import numpy as np
from PIL import Image

import places

HOST = os.environ.get("SAMPLE_HOST", os.path.join(places.ROOT, "build", "sample_host"))


def draw(model, prompts, seed):
    """One picture of each prompt, uint8 [prompt, 128, 128, 3]; picture i has seed + i."""
    places.needs(HOST, "make build makes it")
    files = [places.work(f"drawn-{i}.png") for i in range(len(prompts))]
    lines = [json.dumps({"id": i, "prompt": prompt, "seed": seed + i, "output": file})
             for i, (prompt, file) in enumerate(zip(prompts, files))]
    done = subprocess.run([HOST, "session", "--model", model], input="\n".join(lines) + "\n", text=True,
                          stdout=subprocess.PIPE, check=False)
    failed = [a["error"] for a in map(json.loads, done.stdout.splitlines()) if "error" in a]
    if failed or done.returncode:
        raise places.Refused(f"sample_host session: {failed[0]['message'] if failed else f'status {done.returncode}'}")
    pictures = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    for file in files:
        os.remove(file)
    return pictures
