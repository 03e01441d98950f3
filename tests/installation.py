"""What opt-in tests install beside the environment: Debian's packages, and Snakemake's plugins as uv.lock pins them."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from workflow import REPOSITORY


class UnavailableError(Exception):
    """Why a test cannot have what it needs on this machine."""


def install_programs(programs: Sequence[str], packages: Sequence[str]) -> None:
    """Install these Debian packages where one of their programs is missing; UnavailableError if that fails."""
    if not (missing := missing_programs(programs)):
        return
    if shutil.which("apt-get") is None:
        raise UnavailableError(f"{', '.join(missing)} not found, and no apt-get to install {', '.join(packages)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", "-qq", *command], env=environment, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise UnavailableError(f"apt-get {command[0]} failed: {' '.join(done.stderr.split())[-200:]}")


def missing_programs(programs: Sequence[str]) -> list[str]:
    """Return those of the programs that are not there."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    return [program for program in programs if shutil.which(program, path=path) is None]


def install_plugins(folder: Path, *names: str) -> dict[str, str]:
    """Install these packages into `folder` where the environment lacks one, and return the variables that find them."""
    if all(find_spec(name.replace("-", "_")) for name in names):
        return {}
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    pins = [f"{p['name']}=={p['version']}" for p in lock["package"] if p["name"] in names]
    install = ["uv", "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", str(folder)]
    done = subprocess.run([*install, *pins], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{' and '.join(names)} cannot be installed: {' '.join(done.stderr.split())[-200:]}")
    return {"PYTHONPATH": str(folder)}
