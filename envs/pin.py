"""Rewrite the pip blocks of the environments with the versions of uv.lock: `uv run python envs/pin.py`.

Conda supplies Python only (and detectron2, which is not on the package index, with all that it is built against);
everything else has exactly the version that the driver environment has.
"""

import subprocess
from pathlib import Path

from packaging.requirements import Requirement

PYTHON = "3.12"
ANALYSIS = [
    "h5py", "huggingface-hub", "jinja2", "jsonschema", "markupsafe", "matplotlib", "numpy", "pandas", "pillow",
    "pyarrow", "pyyaml", "safetensors", "scikit-image", "scikit-learn", "scipy", "tqdm",
]  # fmt: skip
TORCH = [
    "google-crc32c", "h5py", "lpips", "numpy", "pillow", "pooch", "pyarrow", "pyyaml", "requests", "safetensors",
    "scikit-image", "scikit-learn", "scipy", "timm", "torch", "torchvision", "tqdm",
]  # fmt: skip
# What detectron2 is built against comes with it from conda, so that both fit together. The lower bound of torch is that
# of pyproject.toml; builds of detectron2 since March 2026 (number 17) have it.
DETECTRON2 = ["h5py", "pyarrow", "pyyaml", "safetensors", "scipy", "tqdm"]
ENVIRONMENTS = {"analysis": ANALYSIS, "torch": TORCH, "detectron2": DETECTRON2}
CONDA = {"detectron2": ["detectron2=0.6", "numpy", "pillow", "pytorch>=2.10", "torchvision"]}


def locked_versions() -> dict[str, str]:
    """Return the locked version of each package for the Python of the environments."""
    command = [
        "uv",
        "export",
        "--frozen",
        "--no-emit-project",
        "--no-hashes",
        "--no-dev",
        "--no-header",
        "--no-annotate",
    ]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    requirements = map(Requirement, filter(None, lines))
    marker_environment = {
        "python_full_version": f"{PYTHON}.0",
        "python_version": PYTHON,
        "sys_platform": "linux",
    }
    return {
        r.name: str(r.specifier).removeprefix("==")
        for r in requirements
        if r.marker is None or r.marker.evaluate(marker_environment)
    }


def main() -> None:
    """Write envs/NAME.yaml for every environment."""
    versions = locked_versions()
    for name, packages in ENVIRONMENTS.items():
        pins = "".join(f"      - {package}=={versions[package]}\n" for package in packages)
        conda = "".join(f"  - {package}\n" for package in CONDA.get(name, []))
        Path(__file__).with_name(f"{name}.yaml").write_text(
            "# Written by envs/pin.py from uv.lock.\n"
            "channels:\n  - conda-forge\n  - nodefaults\n"
            f"dependencies:\n  - python={PYTHON}\n{conda}  - pip\n  - pip:\n{pins}"
        )


if __name__ == "__main__":
    main()
