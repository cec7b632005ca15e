"""Write tests/golden/data from diffusers, transformers, k-diffusion, torch and numpy alone.

Usage, in the virtual environment that README.md describes: python tests/golden/make_goldens.py
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # everything is in the repository

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

import common


def main():
    """Rewrite the whole data folder."""
    common.make_torch_deterministic()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()

    from attention_goldens import write_attention
    from model_goldens import Model, write_model_calls
    from schedule_goldens import write_noise, write_schedules
    from tiny_model import write_tiny_model
    from tokenizer_goldens import write_tokenizer
    from trajectory_goldens import write_cases
    from webui_goldens import write_webui

    common.empty_data_folder()
    write_tiny_model()
    write_attention()
    write_noise()
    write_schedules()

    models = {name: Model(name) for name in common.MODELS}
    doubles = {name: Model(name, torch.float64) for name in common.MODELS}
    precision = {}
    write_tokenizer(models)
    write_model_calls(models, doubles, precision)
    write_cases(models, doubles, precision)
    write_webui(models, doubles, precision)
    common.save_json(common.DATA / "precision.json", precision)
    common.write_sums()


if __name__ == "__main__":
    main()
