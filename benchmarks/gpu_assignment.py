"""Which job takes which GPU, and when, with stand-ins for two GPUs: `uv run python benchmarks/gpu_assignment.py`.

The driver lists two GPUs, on which torch cannot compute, so that the jobs of the toy suite compute on the CPU. One
finetuning is killed (SIGKILL) while others wait for a GPU, and the run is started again. Prints the log in Markdown.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[1]
GPUS = 2
MODELS = {"toy-random": "imagenet", "toy-simclr": "none", "toy-supervised": "imagenet"}
FINETUNED = [f"results/scores/toy-finetune/{model}/digits.json" for model in MODELS]
FEATURES = [
    f"results/features/{model}/{dataset}/resize16.{norm}.npy"
    for model, norm in MODELS.items()
    for dataset in ("digits", "textures")
]


def start(*arguments, **variables):
    """Start Snakemake in the folder."""
    words = [sys.executable, "-m", "snakemake", "-s", REPOSITORY / "workflow/Snakefile", *arguments]
    words += ["--configfile", "config/config.yaml", "--cores", str(GPUS), "--quiet", "all"]
    removed = ("CUDA_VISIBLE_DEVICES", "PYTHONDONTWRITEBYTECODE")
    own = {name: value for name, value in os.environ.items() if name not in removed and "SLURM" not in name}
    own |= {"PATH": f"{folder / 'bin'}:{own['PATH']}", "TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    out = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(words, cwd=folder, env=own | variables, **out)


def kill_one(run):
    """Kill the first finetuning that has a GPU; returns its log."""
    while run.poll() is None:
        for log in (folder / "logs/evaluate_finetune").rglob("*.log"):
            if "takes GPU" in log.read_text():
                model = log.parent.name
                for process in psutil.Process(run.pid).children(recursive=True):
                    files = {file.path for file in process.open_files()}
                    if str(log) in files and "evaluate_finetune" in " ".join(process.cmdline()):
                        process.kill()
                        print(f"{datetime.now():%H:%M:%S.%f}"[:-3], f"SIGKILL to the finetuning of {model}\n")
                        return
        time.sleep(0.02)


def show(title, begun):
    """Print when each job that began after a time took its GPU and ended."""
    rows = []
    for log in (folder / "logs").rglob("*.log"):
        times = {}
        for line in log.read_text().splitlines():
            if match := re.match(r"(\S+ \S+) (takes GPU (GPU-.)|cost )", line):
                when = datetime.fromisoformat(match[1].replace(",", "."))
                times["end" if match[2] == "cost " else "begin"] = when
                times["gpu"] = match[3] or times.get("gpu")
        if times.get("begin", begun) > begun:
            job = " ".join(log.relative_to(folder / "logs").with_suffix("").parts)
            rows.append((times["gpu"], times["begin"], times.get("end"), job))
    print(f"{title}\n\n| GPU | taken | free | job |\n| --- | --- | --- | --- |")
    for gpu, begin, end, job in sorted(rows):
        until = f"{end:%H:%M:%S.%f}"[:-3] if end else "killed"
        print(f"| {gpu} | {begin:%H:%M:%S.%f}"[:-3], f"| {until} | {job} |")
    print(flush=True)


with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    shutil.copytree(REPOSITORY / "tests/config", folder / "config")
    config = folder / "config/config.yaml"
    config.write_text(config.read_text().replace("steps: 4", "steps: 40"))
    program = folder / "bin/nvidia-smi"
    program.parent.mkdir()
    listed = [f"echo 'GPU {number}: stand-in (UUID: GPU-{'abcd'[number]})'" for number in range(GPUS)]
    program.write_text("\n".join(["#!/bin/sh", *listed, ""]))
    program.chmod(0o755)
    images = [f"results/datasets/{dataset}/resize16.npy" for dataset in ("digits", "textures")]
    before = start(*images, *(f"results/checkpoints/{model}.safetensors" for model in MODELS), CUDA_VISIBLE_DEVICES="")
    assert before.wait() == 0
    for title in ("The run in which a job is killed:", "The run after it:"):
        begun = datetime.now()
        run = start(*FINETUNED, *FEATURES)
        if title.startswith("The run in"):
            kill_one(run)
        code = run.wait()
        show(f"{title} exit code {code}.", begun)
