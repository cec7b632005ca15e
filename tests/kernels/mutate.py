#!/usr/bin/env python3
"""One-line changes of the kernels, each built and given to the suite's own cases: which ones does it see?

    tests/kernels/mutate.py [--each N] [--seed S] [FILE ...]

Takes N changes (6) of each FILE (of all of kernels/cpu/*.h) in a copy of the tracked files below build/mutants, and
prints `killed by CASE` or `SURVIVED` for each. Those of tests/kernels/equivalent.txt, which gives the reasons, are left
out, and so are lines that only ask for memory ahead or order stores between threads. Ends with 1 if any other
survived. Run by hand, on a quiet machine.
"""
import argparse
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COPY = os.path.join(ROOT, "build", "mutants")
ATTENTION = ["attention bits", "memory", "storage", "plugin attention", "attention algorithms", "plugin backends",
             "attention suite"]
CASES = [  # the cases that could see a change of a file, those that most often do first
    (r"attention_few", ["few keys", "attention suite"]),
    (r"attention_(chunked|full)", ["attention algorithms", "attention bits", "memory", "plugin backends",
                                   "attention suite"]),
    (r"attention_", ATTENTION),
    (r"(matmul|convolution)_tile|product_", ["products"]),
    (r"(norm|activation)_tile", ["norms"]),
    (r"vector_math", ["norms", "products"]),
    (r"vector_neon", ["arm64"]),
    (r"vector_", ["generic vectors", "exp2", "norms", "products", *ATTENTION]),
]
ARM64 = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "build/arm64/tests/arm64/check", "64"]
CHANGES = [
    (r" <= ", " < "), (r" < ", " <= "), (r" >= ", " > "), (r" > ", " >= "), (r" == ", " != "), (r" != ", " == "),
    (r" \+ ", " - "), (r" - ", " + "), (r" \* ", " + "), (r" / ", " * "), (r" % ", " / "), (r" && ", " || "),
    (r" \|\| ", " && "), (r" \+= ", " -= "), (r" -= ", " += "), (r"\bif \((.*)\)$", r"if (!(\1))"),
    (r"(?<![\w.#\"])(\d+)(?![\w.])", lambda m: str(int(m[1]) + 1)), (r"\b1\.0f", "2.0f"), (r"\b0\.0f", "1.0f"),
    (r"_([CQ])(\d)\b", lambda m: f"_{m[1]}{int(m[2]) + (1 if m[2] == '1' or m[2] == '0' else -1)}"),
    (r"\b(v_add)\(", "v_sub("), (r"\bv_sub\(", "v_add("), (r"\bv_max\(", "v_min("), (r"\bv_min\(", "v_max("),
    (r"\((\w+), (\w+)(?=[,)])", r"(\2, \1"), (r"\bunpacklo", "unpackhi"), (r"\b(_mm\w*_)lo", r"\1hi"),
    (r"^(\s+)(?!return|continue|break|const|static|typedef|int|float|vec|tile |panel |piece |cut |block |\S+ \*)"
     r"[\w(][^{}]*;$", r"\1;"),
]
IDLE = re.compile(r"ahead|prefetch|look_|_calls|v_keep|v_stream_end|[Uu]nroll|UNROLL|UINT64_MAX|_Static_assert|\\$")


def code_lines(text):
    """Numbers of the lines that hold code, without comments, directives and idle ones."""
    inside = False
    for number, line in enumerate(text.split("\n")):
        bare = line.strip()
        inside = inside or bare.startswith("/*")
        ends = "*/" in bare
        if not inside and bare and not bare.startswith("#include") and not IDLE.search(line):
            yield number
        if ends:
            inside = False


def changes(text):
    lines = text.split("\n")
    for number in code_lines(text):
        line = lines[number].split("/*")[0].rstrip()
        for pattern, new in CHANGES:
            for match in re.finditer(pattern, line):
                changed = line[:match.start()] + match.expand(new) + line[match.end():] if isinstance(new, str) \
                    else line[:match.start()] + new(match) + line[match.end():]
                if changed != line:
                    yield number, changed


def run(command, seconds=None, **more):
    """The exit status and the seconds of CPU time; at most `seconds` of them, then None for the status."""
    def limit():
        if seconds:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    process = subprocess.Popen(command, cwd=COPY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               preexec_fn=limit, **more)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return None if process.returncode == -signal.SIGKILL else process.returncode, usage.ru_utime + usage.ru_stime


def build(file):
    """Makes the programs of the cases of `file`. The exit status: 3 where nothing can be built for arm64."""
    if cases_of(file) == ["arm64"]:
        return run(["scripts/arm64.sh", "tests/arm64/check"])[0]
    return run(["make", f"-j{os.cpu_count()}", "build/tests/kernels/check", "build/attune-cpu.so"])[0]


def cases_of(file):
    return next(cases for pattern, cases in CASES if re.match(pattern, file))


def killer(cases, limits):
    """What the first case that fails is called, or None. A change may make a loop endless."""
    for case in cases:
        # Without forks: a crash is a failure too, and no child of a suite that was ended goes on.
        environment = dict(os.environ, CK_RUN_CASE=case, CK_FORK="no", ATTUNE_BUILD="build", ATTUNE_SOURCE=".")
        status, seconds = run(ARM64 if case == "arm64" else ["build/tests/kernels/check"], limits.get(case),
                              env=environment)
        limits.setdefault(case, 10 + int(4 * seconds))
        if status != 0:
            return case if status is not None else f"the time that {case} took"
    return None


def known():
    with open(os.path.join(ROOT, "tests/kernels/equivalent.txt")) as lines:
        return {tuple(part.strip() for part in line.split(" | ")[:2]) for line in lines if " | " in line}


def copy_tree():
    shutil.rmtree(COPY, ignore_errors=True)
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT).decode().split("\0")
    for file in filter(None, files):
        os.makedirs(os.path.dirname(os.path.join(COPY, file)), exist_ok=True)
        shutil.copy2(os.path.join(ROOT, file), os.path.join(COPY, file))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--each", type=int, default=6, help="changes per file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("files", nargs="*", help="names in kernels/cpu")
    options = parser.parse_args()
    copy_tree()
    files = options.files or sorted(f for f in os.listdir(f"{COPY}/kernels/cpu")
                                    if f.endswith(".h") and f != "dispatch.h")
    for file in list(files):
        status = build(file)
        if status == 3:
            print(f"SKIPPED: {file}: no cross compiler, emulator or arm64 libraries")
            files.remove(file)
        elif status:
            sys.exit(f"what tests {file} does not build")
    equivalent, counts = known(), {"killed": 0, "survived": 0}
    limits = {}
    failing = killer(sorted({case for file in files for case in cases_of(file)}), limits)
    if failing:
        sys.exit(f"{failing} fails as it is")
    for file in files:
        path = os.path.join(COPY, "kernels/cpu", file)
        with open(path) as source:
            text = source.read()
        candidates = [c for c in changes(text) if (file, c[1].strip()) not in equivalent]
        random.Random(f"{options.seed} {file}").shuffle(candidates)
        left = options.each
        for number, changed in candidates:
            if left == 0:
                break
            lines = text.split("\n")
            before, lines[number] = lines[number].strip(), changed
            with open(path, "w") as mutant:
                mutant.write("\n".join(lines))
            if build(file):
                continue  # no change that a compiler takes
            left -= 1
            by = killer(cases_of(file), limits)
            counts["killed" if by else "survived"] += 1
            print(f"{'killed by ' + by if by else 'SURVIVED'}: {file}:{number + 1}: {before} -> {changed.strip()}",
                  flush=True)
        with open(path, "w") as source:
            source.write(text)
    print(f"{counts['killed']} killed, {counts['survived']} survived")
    sys.exit(counts["survived"] > 0)


if __name__ == "__main__":
    main()
