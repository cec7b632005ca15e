"""
Attune's parts by libattune's C interface (host_api/attune/host.h, sampler.h):
    attune_parts.py text|unet|vae MODEL WxH THREADS REPEATS       seconds of each repeat, after one that is not counted
    attune_parts.py cold MODEL WxH THREADS                        when (Unix time) the first step has ended
    attune_parts.py step MODEL WxH THREADS REFERENCE.npz          how far a sampler step is from the reference's
"""
import ctypes
import json
import os
import sys
import time

import common
from attune_api import LIBRARY, TEXT, UINT32, UINT64, Options, call, sized

class Request(ctypes.Structure):
    _fields_ = [("struct_size", UINT32), ("determinism", ctypes.c_int32), ("prompt", TEXT), ("negative_prompt", TEXT),
                ("sampler", TEXT), ("scheduler", TEXT), ("seed", UINT64), ("memory_limit", UINT64), ("steps", UINT32),
                ("width", UINT32), ("height", UINT32), ("batch_size", UINT32), ("cfg_scale", ctypes.c_float),
                ("reserved", UINT32), ("clip_skip", UINT32), ("randn_source", UINT32), ("subseed", UINT64),
                ("subseed_strength", ctypes.c_float), ("reserved2", UINT32)]


class Progress(ctypes.Structure):
    _fields_ = [("struct_size", UINT32), ("phase", ctypes.c_int32), ("step", UINT32), ("steps", UINT32),
                ("done", UINT32), ("sigma", ctypes.c_float)]


class Image(ctypes.Structure):
    _fields_ = [("struct_size", UINT32), ("width", UINT32), ("height", UINT32), ("stride", UINT32),
                ("pixels", ctypes.c_void_p)]


class Sessions:
    """Sessions of one open model; the process's end closes all."""

    def __init__(self, model, width, height, threads):
        self.size = (width, height)
        host, self.model = ctypes.c_void_p(), ctypes.c_void_p()
        options = sized(Options, threads=threads, plugin_dir=common.BUILD.encode())
        call("attune_open", ctypes.byref(options), ctypes.byref(host))
        call("attune_load_default", host)
        call("attune_model_open", host, model.encode(), None, None, ctypes.byref(self.model))

    def open(self):
        request = sized(Request, prompt=common.PROMPT.encode(), negative_prompt=common.NEGATIVE.encode(), sampler=b"Euler",
                        seed=common.SEED, memory_limit=2**64 - 1, steps=common.SAMPLE_STEPS, width=self.size[0],
                        height=self.size[1], batch_size=1, cfg_scale=common.CFG)
        session = ctypes.c_void_p()
        call("attune_session_open", self.model, ctypes.byref(request), None, None, ctypes.byref(session), None, None)
        return session


def step(session):
    progress = sized(Progress)
    call("attune_session_step", session, None, ctypes.byref(progress))


def timed(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def time_text(sessions, repeats):
    seconds = []
    for _ in range(1 + repeats):
        session = sessions.open()
        seconds.append(timed(step, session))
        LIBRARY.attune_session_close(session)
    return seconds[1:]


def time_unet(sessions, repeats):
    session = sessions.open()
    step(session)  # the text encoder
    return [timed(step, session) for _ in range(1 + repeats)][1:]


def time_vae(sessions, repeats):
    """Previews: each decodes the present estimate."""
    session = sessions.open()
    step(session)
    step(session)
    width, height = sessions.size
    pixels = ctypes.create_string_buffer(width * height * 3)
    image = sized(Image, width=width, height=height, stride=width * 3, pixels=ctypes.addressof(pixels))
    return [timed(call, "attune_session_preview", session, 0, None, ctypes.byref(image))
            for _ in range(1 + repeats)][1:]


def find_copies(wanted):
    """Where in this process's memory other copies of `wanted` (float32, within 1e-4) lie."""
    import numpy as np

    count, probe, copies = wanted.size, int(np.abs(wanted).argmax()), []
    with open("/proc/self/maps", encoding="utf-8") as maps:
        spans = [line.split()[0].split("-") for line in maps if line.split()[1].startswith("rw")]
    for first, last in spans:
        first, last = int(first, 16), int(last, 16)
        memory = np.frombuffer((ctypes.c_char * (last - first)).from_address(first), np.float32)
        for begin in range(0, memory.size - count + 1, 1 << 24):
            near = memory[begin + probe:begin + probe + (1 << 24)]
            for at in begin + np.flatnonzero(np.abs(near - wanted.flat[probe]) < 1e-4):
                piece = memory[at:at + count]
                if piece.size == count and np.abs(piece - wanted.ravel()).max() < 1e-4:
                    copies.append(piece)
    return [piece for piece in copies if piece.ctypes.data != wanted.ctypes.data]


def compare_step(sessions, reference):
    """
    The C interface hands no latents out. But a session begins at noise · sigma, and the reference says what that
    is: the one place that holds it holds the latents after the step too.
    """
    import numpy as np

    arrays = np.load(reference)
    session = sessions.open()
    with np.errstate(all="ignore"):  # memory that holds no floats
        copies = find_copies(arrays["before"])
    if len(copies) != 1:
        sys.exit(f"the session's latents were found {len(copies)} times, not once")
    step(session)
    step(session)
    return common.step_distance(copies[0].reshape(arrays["after"].shape), arrays)


def main():
    figure, model, size, threads, *rest = sys.argv[1:]
    sessions = Sessions(model, *map(int, size.split("x")), int(threads))
    if figure == "step":
        print(json.dumps(compare_step(sessions, rest[0])))
        return
    if figure == "cold":
        session = sessions.open()
        step(session)
        step(session)
        print(json.dumps({"ended": time.time()}))
        return
    function = {"text": time_text, "unet": time_unet, "vae": time_vae}[figure]
    print(json.dumps({"seconds": function(sessions, int(rest[0]))}))


main()
