#!/usr/bin/env python3
"""What ptxas made of the tensor-core kernels: registers, spills, shared memory, occupancy and the instructions of the inner
loop, for each kernel and GPU, from the fat binaries that ship.

  scripts/cuda_budget.py check BUILD     status 1 where ptxas spilt a register, or a kernel is worse than in tests/cuda/budgets
  scripts/cuda_budget.py write BUILD     write tests/cuda/budgets anew
  scripts/cuda_budget.py roofline        the table of docs/cuda.md, "Estimates", from tests/cuda/budgets

cuobjdump and nvdisasm are found beside nvcc, on PATH, or in Python's packages nvidia-cuda-cuobjdump and
nvidia-cuda-nvdisasm; status 77 where they are not.
"""

import collections
import glob
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile

BUDGETS = "tests/cuda/budgets"
FAMILIES = ("flash", "efficient")
SKIPPED = 77
# CUDA C++ Programming Guide, Technical Specifications per Compute Capability: registers of an SM are 65,536 everywhere;
# shared memory of an SM (each block takes 1 KB more from 8.0 on), warps and blocks of an SM.
DEVICES = {75: (64, 32, 16), 80: (164, 64, 32), 86: (100, 48, 16), 89: (100, 48, 24), 90: (228, 64, 32), 120: (100, 48, 24)}
# Head sizes with a kernel of their own: 16s of queries of a warp, keys of a tile.
TILES = {int(a): (int(b), int(c)) for a, b, c in re.findall(r"X\((\d+), (\d+), (\d+)\)", open("kernels/cuda/attention_shapes.h").read())}
FIELDS = ("kernel", "sm", "registers", "shared", "warps", "loop", "hmma", "hmma8", "ldsm", "ldgsts", "mufu", "ffma")


def tool(name):
    """The path of cuobjdump or nvdisasm, or None."""
    nvcc = shutil.which(os.environ.get("NVCC") or "nvcc")
    places = [os.path.join(os.path.dirname(os.path.realpath(nvcc)), name)] if nvcc else []
    places.append(shutil.which(name))
    places += sorted(glob.glob(os.path.join(sysconfig.get_paths()["purelib"], "nvidia", "*", "bin", name)))
    return next((p for p in places if p and os.access(p, os.X_OK)), None)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def shared_bytes(kernel):
    """Dynamic shared memory, by kernels/cuda/attention_shapes.h."""
    size = re.search(r"f16_(\d+)", kernel)
    if size and int(size[1]) in TILES:
        d, (sixteens, keys) = int(size[1]), TILES[int(size[1])]
        return (64 * sixteens + 2 * keys) * (d if d // 8 % 2 else d + 8) * 2
    return 0 if "join" in kernel else 2 * 16 * (512 + 8) * 2 + 4 * 16 * 24 * 4  # the widest


def count_spills(build):
    """Prints each kernel, of every fat binary that ships, of which ptxas says that it spills: how many; and how many it looked at."""
    spilt = seen = 0
    for log in sorted(glob.glob(f"{build}/kernels/cuda/*.fatbin.ptxas")):
        text = open(log).read()
        for kernel, sm, rest in re.findall(r"Compiling entry function '(\w+)' for 'sm_(\d+)'(.*?)(?=Compiling entry|\Z)", text, re.S):
            stores, loads = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", rest).groups()
            seen += 1
            if int(stores) or int(loads):
                print(f"{kernel} on sm_{sm}: spills {stores} bytes")
                spilt += 1
    return spilt, seen


def warps_of(sm, registers, shared):
    """Warps that an SM holds: blocks of four warps, registers given out by 256 a warp."""
    kilobytes, warps, blocks = DEVICES[sm]
    by_registers = 65536 // (-(-registers * 32 // 256) * 256 * 4)
    by_shared = kilobytes * 1024 // (shared + (1024 if sm >= 80 else 0)) if shared else blocks
    return 4 * min(warps // 4, blocks, by_registers, by_shared)


def inner_loop(lines):
    """The instructions of the shortest loop that holds the most HMMA: one tile of keys; [] where there is none."""
    where, code = {}, []
    for line in lines:
        label = re.match(r"\s*(\.L_x_\d+):", line)
        instruction = re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?);", line)
        if label:
            where[label[1]] = len(code)
        elif instruction:
            code.append(instruction[1])
    loops = []
    for at, text in enumerate(code):
        jump = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", text)
        if jump and where.get(jump[1], len(code)) <= at:
            body = code[where[jump[1]] : at + 1]
            loops.append((sum("HMMA" in i for i in body), -len(body), body))
    best = max(loops, key=lambda l: l[:2], default=(0, 0, []))
    return best[2] if best[0] else []


def measure(build, cuobjdump, nvdisasm):
    """A dictionary (kernel, sm) -> row of FIELDS."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            fatbin = os.path.abspath(f"{build}/kernels/cuda/{family}.fatbin")
            subprocess.run([cuobjdump, "-xelf", "all", fatbin], check=True, cwd=folder, capture_output=True)
        for cubin in sorted(glob.glob(f"{folder}/*.cubin")):
            sm = int(re.search(r"sm_(\d+)", os.path.basename(cubin))[1])
            usage = run(cuobjdump, "-res-usage", cubin)
            resources = {m[1]: m for m in re.finditer(r"Function (\w+):\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)}
            parts = re.split(r"^\.text\.(\w+):", run(nvdisasm, "-c", cubin), flags=re.M)
            for kernel, text in zip(parts[1::2], parts[2::2]):
                if sm < 80 and "bf16" in kernel:
                    continue  # traps: flash.c refuses
                lines = text.splitlines()
                loop = inner_loop(lines)
                count = collections.Counter(re.sub(r"^@!?U?P\w+\s+", "", i).split()[0].split(".")[0] for i in loop)
                registers = int(resources[kernel][2])
                shared = shared_bytes(kernel)
                rows[kernel, sm] = (kernel, sm, registers, shared, warps_of(sm, registers, shared), len(loop),
                                    count["HMMA"], sum("HMMA.1688" in i for i in loop), count["LDSM"], count["LDGSTS"], count["MUFU"], count["FFMA"])
    return rows


def read_budgets():
    rows = {}
    for line in open(BUDGETS):
        if not line.startswith("#"):
            kernel, *numbers = line.split()
            rows[kernel, int(numbers[0])] = (kernel, *map(int, numbers))
    return rows


def write_budgets(rows):
    with open(BUDGETS, "w") as out:
        print("# Made by scripts/cuda_budget.py write: what ptxas of CUDA 13.0 makes of each kernel; `make check SUITE=cuda` fails", file=out)
        print("# where a kernel uses more registers, holds fewer warps or has a longer inner loop than here. hmma8: of depth 8.", file=out)
        print("# " + " ".join(FIELDS), file=out)
        for key in sorted(rows):
            print(*rows[key], file=out)


def worse(new, old):
    """What got worse, as text."""
    n, o = dict(zip(FIELDS, new)), dict(zip(FIELDS, old))
    said = [f"{f} {n[f]}, was {o[f]}" for f in ("registers", "shared") if n[f] > o[f]]
    if n["warps"] < o["warps"]:
        said.append(f"warps of an SM {n['warps']}, were {o['warps']}")
    if n["hmma"] and n["loop"] * o["hmma"] > o["loop"] * n["hmma"] * 1.02:  # 2 %: ptxas orders as it likes
        said.append(f"{n['hmma']} HMMA of {n['loop']} instructions, were {o['hmma']} of {o['loop']}")
    return said


def check(rows):
    old, failed = read_budgets(), 0
    for key, row in sorted(rows.items()):
        said = worse(row, old[key]) if key in old else ["not in the budgets"]
        for what in said:
            print(f"{key[0]} on sm_{key[1]}: {what}")
        failed += len(said)
    for key in sorted(set(old) - set(rows)):
        print(f"{key[0]} on sm_{key[1]}: in the budgets, but not in the binary")
        failed += 1
    # The prototype had 80 HMMA of 851 instructions at head size 80, sm_80.
    best = dict(zip(FIELDS, rows["attune_flash_f16_80", 80]))
    if best["hmma"] * 851 <= 80 * best["loop"]:
        print(f"attune_flash_f16_80: {best['hmma']} HMMA of {best['loop']}: not better than the prototype's 80 of 851")
        failed += 1
    print(f"budgets: {len(rows)} kernels, {failed} worse than {BUDGETS}")
    return 1 if failed else 0


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in ("check", "write", "roofline") or (sys.argv[1] != "roofline" and len(sys.argv) != 3):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    if sys.argv[1] == "roofline":
        import cuda_roofline

        cuda_roofline.table({key: dict(zip(FIELDS, row)) for key, row in read_budgets().items()}, TILES)
        return 0
    if sys.argv[1] == "check":
        spilt, seen = count_spills(sys.argv[2])
        print(f"spills: {seen} kernels, {spilt} spill")
        if spilt or not seen:
            return 1
    cuobjdump, nvdisasm = tool("cuobjdump"), tool("nvdisasm")
    if not cuobjdump or not nvdisasm:
        print("budgets: skipped, cuobjdump and nvdisasm are not there (pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm)")
        return SKIPPED
    rows = measure(sys.argv[2], cuobjdump, nvdisasm)
    if sys.argv[1] == "write":
        write_budgets(rows)
        return 0
    return check(rows)


if __name__ == "__main__":
    sys.exit(main())
