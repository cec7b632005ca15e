"""libattune's C interface (host_api/attune/*.h) by ctypes: structs, errors, and attention on tensors of other libraries."""
import ctypes
import os
import sys

import common

UINT32, UINT64, TEXT = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_char_p
INT32, INT64, POINTER = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


class Options(ctypes.Structure):
    _fields_ = [("struct_size", UINT32), ("threads", UINT32), ("plugin_dir", TEXT), ("vocabulary", TEXT),
                ("log", POINTER), ("log_context", POINTER)]


class Error(ctypes.Structure):
    _fields_ = [("code", INT32), ("native_code", INT32), ("domain", ctypes.c_char * 32), ("where", ctypes.c_char * 120),
                ("message", ctypes.c_char * 512), ("hint", ctypes.c_char * 160)]


class DeviceId(ctypes.Structure):
    _fields_ = [("type", INT32), ("index", INT32), ("uuid", ctypes.c_uint8 * 16)]


class Dtype(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class Tensor(ctypes.Structure):
    _fields_ = [("data", POINTER), ("bytes", UINT64), ("device", DeviceId), ("dtype", Dtype), ("ndim", INT32),
                ("shape", INT64 * 6), ("stride", INT64 * 6)]


class Chunks(ctypes.Structure):
    _fields_ = [("q", UINT32), ("kv", UINT32), ("threshold", UINT32), ("reserved", UINT32)]


class Problem(ctypes.Structure):
    _fields_ = [("struct_size", UINT32), ("mask", INT32), ("causal", INT32), ("scale", ctypes.c_float),
                ("extents", INT64 * 7), ("dtype", Dtype), ("determinism", INT32), ("budget", UINT64),
                ("device", DeviceId), ("workers", UINT32), ("reserved", UINT32), ("strides", INT64 * 20),
                ("chunks", Chunks)]


class Arguments(ctypes.Structure):
    _fields_ = [("struct_size", UINT32), ("reserved", UINT32), ("q", POINTER), ("k", POINTER), ("v", POINTER),
                ("mask", POINTER), ("out", POINTER), ("workspace", POINTER), ("workspace_bytes", UINT64)]


class Stream(ctypes.Structure):
    _fields_ = [("struct_size", UINT32), ("workers", UINT32), ("device", DeviceId), ("native", POINTER),
                ("owner", POINTER)]


class Wish(ctypes.Structure):
    _fields_ = [("struct_size", UINT32), ("determinism", INT32), ("attention", TEXT), ("required", UINT32),
                ("threads", UINT32), ("vendor", TEXT), ("device", TEXT), ("min_memory", UINT64), ("memory_limit", UINT64),
                ("chunks", Chunks), ("swap", UINT32), ("reserved", UINT32)]


class Candidate(ctypes.Structure):
    _fields_ = [("backend", ctypes.c_char * 32), ("plugin", ctypes.c_char * 64), ("code", INT32), ("determinism", INT32),
                ("chosen", UINT32), ("reserved", UINT32), ("nanoseconds", UINT64), ("reason", ctypes.c_char * 192)]


class Choice(ctypes.Structure):
    _fields_ = [("struct_size", UINT32), ("determinism", INT32), ("backend", ctypes.c_char * 32),
                ("plugin", ctypes.c_char * 64), ("version", ctypes.c_char * 32), ("arithmetic", ctypes.c_char * 32),
                ("isa", ctypes.c_char * 32), ("generation", UINT64), ("workspace", UINT64),
                ("fallback", ctypes.c_char * 256), ("candidates", UINT32), ("reserved", UINT32),
                ("candidate", Candidate * 32)]


LIBRARY = ctypes.CDLL(os.path.join(common.BUILD, "libattune.so"))
FLOAT32 = Dtype(2, 32, 1)


def sized(kind, **fields):
    return kind(struct_size=ctypes.sizeof(kind), **fields)


def call(name, *arguments):
    error = Error()
    if getattr(LIBRARY, name)(*arguments, ctypes.byref(error)):
        sys.exit(f"{name}: {error.message.decode()}; {error.hint.decode()}")


def view(tensor, device):
    """A float32 tensor of torch as the library sees it: the same memory, which the tensor keeps."""
    span = 1 + sum((extent - 1) * stride for extent, stride in zip(tensor.shape, tensor.stride()))
    return Tensor(tensor.data_ptr(), 4 * span, device, FLOAT32, tensor.dim(), tuple(tensor.shape), tuple(tensor.stride()))


def threads_of_process():
    return {int(name) for name in os.listdir("/proc/self/task")}


class Library:
    """An open host with its default plugins, each of its threads on its own of `cpus`; the caller's has the first."""

    def __init__(self, cpus):
        self.host, self.device = POINTER(), DeviceId()
        before = threads_of_process()
        options = sized(Options, threads=len(cpus), plugin_dir=common.BUILD.encode())
        call("attune_open", ctypes.byref(options), ctypes.byref(self.host))
        for thread, cpu in zip(sorted(threads_of_process() - before), cpus[1:], strict=True):
            os.sched_setaffinity(thread, {cpu})
        call("attune_load_default", self.host)
        call("attune_cpu_device", self.host, ctypes.byref(self.device))

    def stream(self, threads):
        stream = sized(Stream)
        call("attune_stream_create", self.host, ctypes.byref(self.device), threads, ctypes.byref(stream))
        return stream

    def problem(self, stream, tensors):
        views, problem = [view(tensor, self.device) for tensor in tensors], Problem()
        q, k, v, out = map(ctypes.byref, views)
        call("attune_attention_problem_init", ctypes.byref(problem), q, k, v, None, out)
        problem.workers = stream.workers
        return problem, views

    def backends(self, stream, tensors):
        """Names of the loaded attention backends: those that a choice for these tensors asks."""
        problem, _ = self.problem(stream, tensors)
        choice = sized(Choice)
        call("attune_choose", self.host, None, ctypes.byref(problem), ctypes.byref(choice), None)
        return [candidate.backend.decode() for candidate in choice.candidate[:choice.candidates]]


class Attention:
    """One backend bound to q, k, v and out (tensors of torch, axes batch, head, token, channel); calling it runs it."""

    def __init__(self, library, backend, stream, tensors):
        problem, self.views = library.problem(stream, tensors)
        wish, self.choice, self.binding = sized(Wish, attention=backend.encode(), required=1), sized(Choice), POINTER()
        call("attune_choose", library.host, ctypes.byref(wish), ctypes.byref(problem), ctypes.byref(self.choice),
             ctypes.byref(self.binding))
        q, k, v, out = (ctypes.addressof(tensor) for tensor in self.views)
        self.arguments = sized(Arguments, q=q, k=k, v=v, out=out)
        self.stream, self.tensors = stream, tensors

    def __call__(self):
        call("attune_attend", self.binding, ctypes.byref(self.arguments), ctypes.byref(self.stream), None)

    def close(self):
        LIBRARY.attune_binding_release(self.binding)
