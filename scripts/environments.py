"""An interpreter with the packages of a requirements.txt, for the benchmarks and for the training of the model."""
import os
import subprocess
import sys
import venv

# Prints the requirements that its interpreter lacks; a local suffix ("+cpu") is no difference.
MISSING = """
import importlib.metadata, sys
for line in open(sys.argv[1], encoding="ascii"):
    name, version = line.strip().split("==")
    try:
        if importlib.metadata.version(name).split("+")[0] != version:
            print(name)
    except importlib.metadata.PackageNotFoundError:
        print(name)
"""


def has_requirements(python, requirements):
    """Whether an interpreter has the versions that a requirements.txt names."""
    if not os.path.exists(python):
        return False
    check = subprocess.run([python, "-c", MISSING, requirements], capture_output=True, text=True, check=False)
    return check.returncode == 0 and not check.stdout


def python_with(requirements, cache):
    """This interpreter where it has them, else that of the virtual environment in the folder `cache`, made on first
    use and made anew where it is another or was not finished."""
    if has_requirements(sys.executable, requirements):
        return sys.executable
    folder = os.path.join(cache, "venv")
    python = os.path.join(folder, "bin", "python")
    if has_requirements(python, requirements):
        return python
    print(f"installing {requirements} into {folder} (about 5 GB when new)", file=sys.stderr)
    venv.create(folder, clear=True, with_pip=True)
    if subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=False).returncode:
        sys.exit(f"pip could not install {requirements}")
    return python
