"""Inspect a file of weights without running any job: its kind, the networks in it, and the row that would read it."""

import shlex
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ssltransfer.checkpoints.auto import Content, explain_misfit, find_places, flatten, no_tensors
from ssltransfer.checkpoints.auto_network import find_network_places, find_target
from ssltransfer.checkpoints.convert import read_published
from ssltransfer.checkpoints.file_kind import file_kind, refuse_pages
from ssltransfer.checkpoints.recognition import Network, recognise
from ssltransfer.checkpoints.torch_file import load_content
from ssltransfer.errors import InputError
from ssltransfer.models.architecture import backbone_shapes, is_resnet, parse_architecture
from ssltransfer.models.backbone_file import forward_check
from ssltransfer.models.model_row import own_norm
from ssltransfer.models.timm_catalog import find_network
from ssltransfer.safe_pickle import shown

MAX_NETWORKS = 10
"""Kinds of networks of one file that are compared with it tensor by tensor."""

_KINDS = {
    "torch": "a torch file",
    "old torch": "a torch file of before release 1.6",
    "safetensors": "a safetensors file",
}


@dataclass(frozen=True)
class Inspection:
    """The content of a file of weights, and what reads it.

    Attributes
    ----------
    path : Path
    size : int
        Bytes.
    kind : str
        Kind of file with its article, empty if unknown.
    networks : tuple of Network
        The networks that were recognised, by the beginning of their names.
    tensors : int
        Number of tensors.
    beside : tuple of str
        Top-level entries that hold no tensors.
    arch, format : str
        Cells of `models.tsv` that read the file; empty if none do.
    left_out : int
        Number of tensors that this reading leaves out.
    readout : str
        What the column `pool` may be, for networks of timm.
    problem : str
        Why the file cannot be read, with what to do; empty if it can.
    """

    path: Path
    size: int
    kind: str
    networks: tuple[Network, ...] = ()
    tensors: int = 0
    beside: tuple[str, ...] = ()
    arch: str = ""
    format: str = ""
    left_out: int = 0
    readout: str = ""
    problem: str = ""

    @property
    def loads(self) -> bool:
        """Whether a row of `models.tsv` with these cells would load."""
        return not self.problem

    def row(self, model: str = "my-net") -> str:
        """Return the row of `models.tsv` that reads the file, cells separated by tabs."""
        format = "" if self.format == "auto" else self.format
        return "\t".join([model, "", "", self.arch, f"file:{self.path}", format]).rstrip("\t")

    def _next_step(self) -> list[str]:
        """Say how to add the row, and what it must say beside what the file tells."""
        cells = f"--arch {shlex.quote(self.arch)}"
        if self.format != "auto":
            cells += f" --format {shlex.quote(self.format)}"
        command = f"uv run ssltransfer add model my-net {shlex.quote(str(self.path))} {cells}"
        try:
            own_norm({"arch": self.arch, "source": "file:"})
        except InputError as error:
            return [f"  {error}", f"  add it: {command} --norm NAME --suites mine"]
        return [f"  add it: {command} --suites mine"]

    def __str__(self) -> str:
        """Describe the file in a few lines, the last of which is the next step."""
        if not self.path.is_file():
            return self.problem
        lines = [f"{self.path}: {self.kind or 'a file of unknown kind'}, {self.size:,} bytes"]
        if self.tensors:
            lines.append(f"  {self.tensors} tensors")
        for network in self.networks:
            lines.append(f"  {network.title}" + (f", behind {network.prefix!r}" if network.prefix else ""))
        if self.beside:
            lines.append(f"  beside the tensors: {shown(self.beside, 10)}")
        if self.loads:
            lines.append(f"  loads as arch {self.arch}, format {self.format}; {self.left_out} tensors are left out")
            if self.readout:
                lines.append(f"  {self.readout}")
            lines.append(f"  row of config/models.tsv: {self.row()!r}")
            lines += self._next_step()
        else:
            lines.append(f"  does not load: {self.problem.removeprefix(f'{self.path}: ')}")
        return "\n".join(lines)


def inspect_checkpoint(path: Path, arch: str = "", format: str = "auto") -> Inspection:
    """Inspect a file of weights as the workflow would read it; no code in it runs.

    Parameters
    ----------
    path : Path
    arch : str
        Architecture that it should be; by default the one that is recognised.
    format : str
        See `convert.read_published`.

    Returns
    -------
    Inspection
        With the problem as a sentence, if the file cannot be read: this function raises no `InputError`.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        return Inspection(path, 0, "", problem=f"{path} {what}; write the path of a file of weights")
    size, kind = path.stat().st_size, file_kind(path)
    kind = _KINDS.get(kind, "a pickle" if kind == "pickle" else kind)
    try:
        if arch:
            parse_architecture(arch)
    except InputError as error:
        return Inspection(path, size, kind, problem=str(error))
    if not format.startswith("auto"):
        return _read(Inspection(path, size, kind), arch or "resnet50", format)
    try:
        refuse_pages(path)
        content = flatten(load_content(path), path)
    except InputError as error:
        return Inspection(path, size, kind, problem=str(error))
    return _read_auto(Inspection(path, size, kind), content, arch, format)


def _read_auto(found: Inspection, content: Content, arch: str, format: str) -> Inspection:
    shapes = content.shapes
    networks = tuple(recognise(shapes))
    beside = tuple(dict.fromkeys(name.partition(".")[0] for name in content.beside))
    found = replace(found, networks=networks, tensors=len(shapes), beside=beside)
    if not shapes:
        return replace(found, problem=f"{found.path}: {no_tensors(content)}")
    if arch:
        return _read(found, arch, format)
    known = dict.fromkeys(network.arch for network in networks if network.arch)
    for name in islice(known, MAX_NETWORKS):
        if _fits(content, name):
            return _read(found, name, format)
    for name in known:
        if not is_resnet(name):
            return _read(found, name, format)
    arch = next(iter(known), "resnet50")
    return replace(
        found, problem=f"{found.path}: {explain_misfit(content, find_places(shapes, backbone_shapes(arch)), arch)}"
    )


def _fits(content: Content, arch: str) -> bool:
    """Whether a network stands somewhere in a file; False also where it cannot be built."""
    try:
        places = (
            find_places(content.shapes, backbone_shapes(arch))
            if is_resnet(arch)
            else find_network_places(content.tensors, find_target(arch))
        )
    except InputError:
        return False
    return any(place.fits and content.has_values(place) for place in places)


def _read(found: Inspection, arch: str, format: str) -> Inspection:
    try:
        published = read_published([found.path], format, arch)
        forward_check(published.state, arch, str(found.path))
    except InputError as error:
        return replace(found, problem=str(error))
    return replace(found, arch=arch, format=format, left_out=len(published.dropped), readout=_readout(arch))


def _readout(arch: str) -> str:
    """Say which vectors can be read from a network of timm."""
    if not arch.startswith(("timm:", "torchvision:")):
        return ""
    network = find_network(arch)
    if not network.tokens:
        return f"pool: empty, the network's own readout ({network.width} values)"
    tokens = "cls, mean, cls-mean" if network.class_token else "mean"
    return f"pool: empty for the network's own readout ({network.width} values), or {tokens}, layers-N"
