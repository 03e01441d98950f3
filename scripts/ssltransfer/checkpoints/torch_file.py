"""Read checkpoints written by ``torch.save``: position of the backbone in the files of each project."""

import difflib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ssltransfer.checkpoints.file_kind import is_safetensors, refuse_other_files
from ssltransfer.checkpoints.read_checkpoint import ReadCheckpoint, log_dropped
from ssltransfer.errors import InputError, first_line
from ssltransfer.safe_pickle import shown
from ssltransfer.torch_reader import read_torch_file

log = logging.getLogger(__name__)

_FIND = "leave the format empty to have the weights found"


@dataclass(frozen=True)
class TorchFormat:
    """How a project writes its checkpoints.

    Attributes
    ----------
    prefix : str
        Beginning of the backbone's names, before torchvision's names.
    drop : tuple of str
        Beginnings of the names that belong to no backbone: heads, queues, momentum copies. Names that begin with none
        of these nor with `prefix` are an error.
    entries : tuple of str
        Keys that lead from the loaded object to the state dict.
    head : str
        Beginning of the names of a linear ImageNet classifier that the file holds.
    """

    prefix: str = ""
    drop: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    head: str = ""


FORMATS = {
    "torchvision": TorchFormat(head="fc."),
    "state-dict": TorchFormat(entries=("state_dict",), head="fc."),
    "data-parallel": TorchFormat("module.", entries=("state_dict",), head="fc."),
    "moco": TorchFormat(
        "module.encoder_q.", ("module.encoder_q.fc.", "module.encoder_k.", "module.queue"), ("state_dict",)
    ),
    "moco-v3": TorchFormat(
        "module.base_encoder.",
        ("module.base_encoder.fc.", "module.momentum_encoder.", "module.predictor."),
        ("state_dict",),
    ),
    "simsiam": TorchFormat("module.encoder.", ("module.encoder.fc.", "module.predictor."), ("state_dict",)),
    "pycontrast": TorchFormat("module.encoder.", ("module.head.", "module.head_jig."), ("model",)),
    "swav": TorchFormat("module.", ("module.projection_head.", "module.prototypes.")),
    "dino-full": TorchFormat("module.backbone.", ("module.head.",), ("teacher",)),
    "mmselfsup": TorchFormat("backbone.", ("neck.", "head.", "queue"), ("state_dict",)),
    "vissl": TorchFormat(
        "_feature_blocks.", ("_feature_blocks.fc.",), ("classy_state_dict", "base_model", "model", "trunk")
    ),
}
"""Values of the `format` column of `models.tsv`, for files written by torch."""


def load_content(path: Path) -> Any:
    """Read the object in a torch file (either serialisation), or the tensors of a safetensors file; no code runs.

    Raises
    ------
    InputError
        If the file is something else (`file_kind.refuse_other_files`), damaged, or names what no weights hold.
    """
    refuse_other_files(path)
    try:
        return load_file(path) if is_safetensors(path) else read_torch_file(path)
    except Exception as error:  # a damaged or hostile file can raise nearly anything
        reason = first_line(error)
        raise InputError(
            f"{path} cannot be read as a torch file of tensors and plain data: {reason}; fetch it again, or load it "
            "where it was made and save its state dict alone"
        ) from None


def load_tensors(path: Path, entries: tuple[str, ...]) -> dict[str, Tensor]:
    """Load a torch or safetensors file (see `load_content`) and follow `entries` to its state dict.

    Raises
    ------
    InputError
        As `load_content`, and if the entries lead to no state dict.
    """
    content = load_content(path)
    for entry in entries:
        if not isinstance(content, dict) or entry not in content:
            found = shown(content) if isinstance(content, dict) else type(content).__name__
            raise InputError(f"{path}: entry {entry!r} is missing; found {found}; {_FIND}")
        if beside := [key for key in content if key != entry]:
            log.info("left out: %s, beside %r", shown(beside, 20), entry)
        content = content[entry]
    if not isinstance(content, dict):
        raise InputError(f"{path}: found a {type(content).__name__}, expected a dict of tensors; {_FIND}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(
                f"{path}: found {shown([name])}, expected a dict of tensors; write another format, or {_FIND}"
            )
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise InputError(
                f"{path}: {shown([name])} is a {tensor.layout} {tensor.device} tensor, expected values; save the "
                "weights themselves"
            )
    return {name: tensor.detach() for name, tensor in content.items()}


def read_torch(path: Path, form: TorchFormat, expected: set[str]) -> ReadCheckpoint:
    """Read a file of the given form.

    Parameters
    ----------
    path : Path
    form : TorchFormat
    expected : set of str
        Names of the backbone's tensors.

    Raises
    ------
    InputError
        If a name is explained neither by the backbone nor by the form: with the names nearest to it, and the prefix
        that would fit.
    """
    tensors = load_tensors(path, form.entries)
    state: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    dropped, unexplained = [], []
    for name, tensor in tensors.items():
        plain = name.removeprefix(form.prefix)
        if form.head and plain.startswith(form.head):
            head[plain.removeprefix(form.head)] = tensor
        elif name.startswith(form.drop):
            dropped.append(name)
        elif name.startswith(form.prefix) and plain in expected:
            state[plain] = tensor
        else:
            unexplained.append(name)
    if unexplained or not state:
        raise InputError(f"{path}: {_explain(list(tensors), unexplained, form, expected)}")
    log_dropped(dropped, group=lambda name: next(start for start in form.drop if name.startswith(start)))
    if head and set(head) != {"weight", "bias"}:
        raise InputError(
            f"{path}: the classifier {form.head!r} has entries {shown(head)}, expected weight and bias; {_FIND}"
        )
    classifier = (head["weight"], head["bias"]) if head else None
    return ReadCheckpoint(state, classifier, dropped)


def _explain(names: list[str], unexplained: list[str], form: TorchFormat, expected: set[str]) -> str:
    """Say which names fit nothing, and what would fit them."""
    prefixes = [name.removesuffix("conv1.weight") for name in names if name.endswith("conv1.weight")]
    prefix = min(prefixes, key=len, default=None)
    if prefix is not None and prefix != form.prefix:
        found = shown([prefix])
        expected_prefix = f"this format expects {form.prefix!r}"
        return f"the backbone's names begin with {found}, {expected_prefix}; use another format, or {_FIND}"
    first = unexplained[0] if unexplained else "nothing"
    near = difflib.get_close_matches(first.removeprefix(form.prefix)[:200], expected, n=3, cutoff=0.3)
    return (
        f"{len(unexplained)} entries belong neither to the backbone nor to what this format leaves out, first "
        f"{shown([first])}; nearest names of the backbone: {', '.join(near) or 'none'}; use another format, or {_FIND}"
    )


def read_classifier(path: Path) -> tuple[Tensor, Tensor]:
    """Read a linear ImageNet classifier published apart from its backbone.

    Returns
    -------
    weight : Tensor, shape (classes, features)
    bias : Tensor, shape (classes,)

    Raises
    ------
    InputError
        If the file does not hold exactly one such pair.
    """
    content: dict = {"": None}
    for entries in (("state_dict",), ("classifier",), ("model",), ()):
        try:
            content = load_tensors(path, entries)
            break
        except InputError:
            if not entries:
                raise
    pairs = [
        (tensor, content[bias])
        for name, tensor in content.items()
        if tensor.ndim == 2 and (bias := name.removesuffix("weight") + "bias") in content
    ]
    if len(pairs) != 1:
        raise InputError(
            f"{path}: found {len(pairs)} pairs of weight and bias, expected one linear classifier; save it alone"
        )
    return pairs[0]
