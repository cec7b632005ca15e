"""k-diffusion's sampling.py and external.py, without the training half of that package.

`import k_diffusion` would load training, evaluation and layers with all that they need. The two
modules used here need only torch, tqdm, Pillow and safetensors for the samplers in question, so
the package's own __init__ is bypassed and the packages that are never called are empty stubs.
"""

import importlib
import importlib.util
import sys
import types

UNUSED = {
    "scipy": ["integrate"],
    "torchdiffeq": ["odeint"],
    "torchsde": [],
    "torchvision": [],
    "torchvision.transforms": ["functional"],
}


def load_kdiffusion():
    """Return the modules (sampling, external) of the installed k-diffusion."""
    for name, attributes in UNUSED.items():
        stub = types.ModuleType(name)
        for attribute in attributes:
            setattr(stub, attribute, None)
        sys.modules[name] = stub
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(importlib.util.find_spec("k_diffusion").submodule_search_locations)
    sys.modules["k_diffusion"] = package
    sampling = importlib.import_module("k_diffusion.sampling")
    external = importlib.import_module("k_diffusion.external")
    for name in UNUSED:
        del sys.modules[name]
    return sampling, external


sampling, external = load_kdiffusion()
