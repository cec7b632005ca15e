"""
diffusers (torch, float32) and OpenVINO (float32) on the same folder as Attune:
    peers.py diffusers|openvino text|unet|vae MODEL WxH THREADS REPEATS   seconds of each repeat, after one uncounted
    peers.py diffusers|openvino cold MODEL WxH THREADS                    when (Unix time) the first step has ended
    peers.py diffusers|openvino whole MODEL WxH THREADS STEPS OUT.png     a picture by Euler steps with guidance
    peers.py diffusers reference MODEL WxH THREADS REFERENCE.npz          write latents before and after one step
    peers.py openvino step MODEL WxH THREADS REFERENCE.npz                how far a step is from the reference's
    peers.py convert MODEL FOLDER                                         OpenVINO's form of the three networks
A peer loads only the networks that it needs, by the shortest way: no pipeline object, no safety checker.
"""
import functools
import json
import os
import sys
import time

import numpy as np

import common

PARTS = {"text": "text_encoder", "unet": "unet", "vae": "vae"}
# The text part that is timed: the encoder, and the keys and values that the UNet's cross attention makes of its result,
# since Attune's text phase makes both.
WITH_CONTEXT = "context"


def read_json(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return json.load(file)


def load_torch(model, part):
    """One network in float32, whatever it is stored in, in evaluation mode."""
    import torch

    torch.set_grad_enabled(False)
    if part == WITH_CONTEXT:
        return join_context(load_torch(model, "text"), load_torch(model, "unet"))
    folder = os.path.join(model, PARTS[part])
    if part == "text":
        from transformers import CLIPTextModel
        return CLIPTextModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    if part == "unet":
        from diffusers import UNet2DConditionModel
        return UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    from diffusers import AutoencoderKL
    return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()


def join_context(encoder, unet):
    """The encoder and the UNet's projections of the text as one network, whose one result holds all of theirs."""
    import torch

    class Context(torch.nn.Module):
        def __init__(self):
            super().__init__()
            blocks = [module.attn2 for module in unet.modules() if hasattr(module, "attn2")]
            self.encoder = encoder
            self.projections = torch.nn.ModuleList(p for block in blocks for p in (block.to_k, block.to_v))

        def forward(self, ids):
            text = self.encoder(ids).last_hidden_state
            return torch.cat([text, *(projection(text) for projection in self.projections)], dim=-1)

    return Context().eval()


class Diffusers:
    """The three networks as functions of numpy arrays, each loaded when first called."""

    def __init__(self, model, threads, _shape):
        import torch

        torch.set_num_threads(threads)
        self.model, self.from_numpy = model, torch.from_numpy
        self.load = functools.cache(lambda part: load_torch(model, part))

    @staticmethod
    def count(function, *arguments):
        """Floating-point operations of the products and convolutions of a call, attention's included."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

        attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which it does not know
        rules = {attention: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)}
        with FlopCounterMode(display=False, custom_mapping=rules) as counter:
            function(*arguments)
        return counter.get_total_flops()

    def text(self, ids):
        return self.load("text")(self.from_numpy(ids)).last_hidden_state.numpy()

    def context(self, ids):
        return self.load(WITH_CONTEXT)(self.from_numpy(ids)).numpy()

    def unet(self, x, timestep, context):
        arrays = [self.from_numpy(array) for array in (x, timestep, context)]
        return self.load("unet")(*arrays, return_dict=False)[0].numpy()

    def vae(self, latents):
        return self.load("vae").decode(self.from_numpy(latents), return_dict=False)[0].numpy()


class OpenVino:
    """The same by OpenVINO, with static shapes."""

    def __init__(self, model, threads, shape):
        self.model, self.threads, self.shape = model, threads, shape
        self.load = functools.cache(self.compile)

    def compile(self, part):
        import openvino

        core = openvino.Core()
        network = core.read_model(os.path.join(common.openvino_folder(self.model), part + ".xml"))
        context = [2, 77, read_json(self.model, "unet", "config.json")["cross_attention_dim"]]
        network.reshape({"text": {0: [2, 77]}, WITH_CONTEXT: {0: [2, 77]}, "unet": {0: [2, *self.shape[1:]], 1: [], 2: context},
                         "vae": {0: list(self.shape)}}[part])
        return core.compile_model(network, "CPU", {
            "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": True}).create_infer_request()

    def run(self, part, *arrays):
        return self.load(part).infer(list(arrays), share_inputs=True, share_outputs=True)[0]

    def text(self, ids):
        return self.run("text", ids)

    def context(self, ids):
        return self.run(WITH_CONTEXT, ids)

    def unet(self, x, timestep, context):
        return self.run("unet", x, timestep, context)

    def vae(self, latents):
        return self.run("vae", latents)


def convert(model, folder):
    """Traced at a small size with free heights and widths; weights stay float32."""
    import openvino
    import torch

    config = read_json(model, "unet", "config.json")
    channels, hidden = config["in_channels"], config["cross_attention_dim"]
    latents = torch.randn(2, channels, 16, 16)
    ids = torch.zeros(2, 77, dtype=torch.int64)
    calls = {"text": (lambda network, i: network(i).last_hidden_state, (ids,), [[2, 77]]),
             WITH_CONTEXT: (lambda network, i: network(i), (ids,), [[2, 77]]),
             "unet": (lambda network, x, t, c: network(x, t, c, return_dict=False)[0],
                      (latents, torch.tensor(501.0), torch.randn(2, 77, hidden)),
                      [[2, channels, -1, -1], [], [2, 77, hidden]]),
             "vae": (lambda network, x: network.decode(x, return_dict=False)[0], (latents[:1],), [[1, channels, -1, -1]])}

    class Part(torch.nn.Module):
        def __init__(self, network, function):
            super().__init__()
            self.network, self.function = network, function

        def forward(self, *arrays):
            return self.function(self.network, *arrays)

    for part, (function, example, shapes) in calls.items():
        made = openvino.convert_model(Part(load_torch(model, part), function), example_input=example, input=shapes)
        openvino.save_model(made, os.path.join(folder, part + ".xml"), compress_to_fp16=False)


class NoiseLevels:
    """k-diffusion's sigmas as the web UI uses them: sigma(t) for t evenly spaced from 999 to 0, then 0."""

    def __init__(self, model, steps):
        config = read_json(model, "scheduler", "scheduler_config.json")
        assert config["beta_schedule"] == "scaled_linear" and config.get("prediction_type", "epsilon") == "epsilon"
        count = config["num_train_timesteps"]
        betas = np.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, count) ** 2
        alphas = np.cumprod(1 - betas).astype(np.float32).astype(np.float64)
        self.timesteps = np.linspace(count - 1.0, 0.0, steps)
        log_sigmas = np.interp(self.timesteps, np.arange(count), 0.5 * np.log((1 - alphas) / alphas))
        self.sigmas = np.append(np.exp(log_sigmas), 0.0).astype(np.float32)


def euler_step(networks, levels, index, x, context):
    """Karras et al. 2022, algorithm 1, first order, with classifier-free guidance (Ho & Salimans 2022)."""
    sigma, next_sigma = levels.sigmas[index:index + 2]
    scaled = (x / np.sqrt(sigma * sigma + np.float32(1))).astype(np.float32)
    noise = networks.unet(np.concatenate([scaled, scaled]), np.array(levels.timesteps[index], np.float32), context)
    cond, uncond = x - sigma * noise[:1], x - sigma * noise[1:]
    denoised = uncond + (cond - uncond) * np.float32(common.CFG)
    return x + (x - denoised) / sigma * (next_sigma - sigma)


def read_text(networks):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(os.path.join(networks.model, "tokenizer"))
    ids = tokenizer([common.PROMPT, common.NEGATIVE], padding="max_length", max_length=77)["input_ids"]
    return np.array(networks.text(np.array(ids, np.int64)))


def time_part(networks, part, shape, repeats):
    generator = np.random.default_rng(0)
    hidden = read_json(networks.model, "unet", "config.json")["cross_attention_dim"]
    normal = functools.partial(generator.standard_normal, dtype=np.float32)
    part = WITH_CONTEXT if part == "text" else part
    inputs = {WITH_CONTEXT: lambda: [generator.integers(0, 49406, (2, 77))],
              "unet": lambda: [normal((2, *shape[1:])), np.array(501.0, np.float32), normal((2, 77, hidden))],
              "vae": lambda: [normal(shape)]}[part]()
    seconds, function = [], getattr(networks, part)
    for _ in range(1 + repeats):
        start = time.perf_counter()
        result = function(*inputs)
        seconds.append(time.perf_counter() - start)
        assert np.isfinite(result).all()
    # After the measured calls, since counting changes what a first call is.
    return {"seconds": seconds[1:], "flops": networks.count(function, *inputs) if hasattr(networks, "count") else None}


def draw(networks, shape, steps, path):
    from PIL import Image

    levels, context = NoiseLevels(networks.model, steps), read_text(networks)
    x = np.random.default_rng(common.SEED).standard_normal(shape, dtype=np.float32) * levels.sigmas[0]
    for index in range(steps):
        x = euler_step(networks, levels, index, x, context)
    scale = np.float32(read_json(networks.model, "vae", "config.json").get("scaling_factor", 0.18215))
    decoded = networks.vae(x / scale)[0]
    assert np.isfinite(decoded).all()
    pixels = (255 * np.clip((decoded + 1) / 2, 0, 1)).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(pixels).save(path)
    return {}


def first_step(networks, shape):
    levels, context = NoiseLevels(networks.model, common.SAMPLE_STEPS), read_text(networks)
    x = np.random.default_rng(common.SEED).standard_normal(shape, dtype=np.float32) * levels.sigmas[0]
    assert np.isfinite(euler_step(networks, levels, 0, x, context)).all()
    return {"ended": time.time()}


def write_reference(networks, shape, path):
    """The first of the steps that attune_parts.py takes, from the noise of torch's CPU generator."""
    import torch

    levels, context = NoiseLevels(networks.model, common.SAMPLE_STEPS), read_text(networks)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(common.SEED)).numpy()
    before = noise * levels.sigmas[0]
    np.savez(path, before=before, after=euler_step(networks, levels, 0, before, context))
    return {}


def compare_step(networks, path):
    reference = np.load(path)
    levels, context = NoiseLevels(networks.model, common.SAMPLE_STEPS), read_text(networks)
    return common.step_distance(euler_step(networks, levels, 0, reference["before"], context), reference)


def main():
    if sys.argv[1] == "convert":
        convert(*sys.argv[2:])
        print("{}")
        return
    peer, figure, model, size, threads, *rest = sys.argv[1:]
    width, height = (int(side) // 8 for side in size.split("x"))
    shape = (1, read_json(model, "unet", "config.json")["in_channels"], height, width)
    networks = {"diffusers": Diffusers, "openvino": OpenVino}[peer](model, int(threads), shape)
    if figure == "whole":
        reply = draw(networks, shape, int(rest[0]), rest[1])
    elif figure == "cold":
        reply = first_step(networks, shape)
    elif figure == "reference":
        reply = write_reference(networks, shape, rest[0])
    elif figure == "step":
        reply = compare_step(networks, rest[0])
    else:
        reply = time_part(networks, figure, shape, int(rest[0]))
    print(json.dumps(reply))


main()
