"""Recognise networks by the names and shapes of their tensors, for messages about weights of another architecture."""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ssltransfer.errors import InputError
from ssltransfer.models.architecture import is_resnet, parse_architecture, parse_resnet
from ssltransfer.models.timm_catalog import is_network


class Shapes(dict[str, tuple[int, ...]]):
    """Shapes of tensors by name; a look at those with one beginning takes no look at all others."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(shapes)
        self._sorted = sorted(shapes)

    def behind(self, start: str) -> list[str]:
        """Names with a beginning, sorted."""
        first = bisect_left(self._sorted, start)
        return self._sorted[first : bisect_right(self._sorted, start, first, key=lambda name: name[: len(start)])]


class Network(NamedTuple):
    """A network that a file holds.

    Attributes
    ----------
    prefix : str
        Beginning of the names of its tensors.
    title : str
        What it is, such as ``ResNet-18 (basic blocks, without conv3)``.
    arch : str
        Its value of the column `arch`, empty if none is known that reads these names.
    """

    prefix: str
    title: str
    arch: str = ""

    def has_arch(self, arch: str) -> bool:
        """Whether this is the network of an `arch`, whose padding leaves no trace in the tensors."""
        if is_resnet(self.arch) and is_resnet(arch):
            return parse_resnet(self.arch)[:2] == parse_resnet(arch)[:2]
        try:
            return bool(self.arch) and parse_architecture(self.arch).name == parse_architecture(arch).name
        except InputError:
            return False


NUMBERED = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
"""Module of a ResNet -> its number where the network was saved as an `nn.Sequential` of its children."""

_BASIC = {(2, 2, 2, 2): "ResNet-18", (3, 4, 6, 3): "ResNet-34"}
_RESNEXT = {(50, 32, 4), (101, 32, 8), (101, 64, 4)}
"""Depth, groups and channels a group of the ResNeXts of torchvision."""
_BOTTLENECK = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152, (3, 24, 36, 3): 200}
_VIT_SIZES = {192: "Ti", 384: "S", 768: "B", 1024: "L", 1280: "H", 1408: "g", 1536: "g", 1664: "G", 4096: "7B"}
_TIMM_SIZES = {"Ti": "tiny", "S": "small", "B": "base", "L": "large", "H": "huge"}
_HIERA = {
    (96, 12): "tiny",
    (96, 16): "small",
    (96, 24): "base",
    (112, 24): "base_plus",
    (144, 48): "large",
    (256, 48): "huge",
}
"""Width and number of blocks -> timm's name of the size."""
_VIT_PATCHES = (
    # Embedding of patches and numbered blocks, as timm, DINO, MAE / torchvision / transformers / CLIP name them.
    ("patch_embed.proj.weight", "blocks."),
    ("conv_proj.weight", "encoder.layers.encoder_layer_"),
    ("embeddings.patch_embeddings.projection.weight", "encoder.layer."),
    ("conv1.weight", "transformer.resblocks."),
)
_HIERA_PATCH, _DINOV2_PATCH = 7, 14
_STAGED = {
    "ConvNeXt": {
        ((3, 3, 9, 3), 96): "T",
        ((3, 3, 27, 3), 96): "S",
        ((3, 3, 27, 3), 128): "B",
        ((3, 3, 27, 3), 192): "L",
    },
    "Swin": {((2, 2, 6, 2), 96): "T", ((2, 2, 18, 2), 96): "S", ((2, 2, 18, 2), 128): "B", ((2, 2, 18, 2), 192): "L"},
}
"""Depths and width -> size, by family."""

_OTHERS = (
    ("features.denseblock1.denselayer1.conv1.weight", "DenseNet"),
    ("features.conv0.weight", "DenseNet"),
    ("conv_stem.weight", "EfficientNet or MobileNet"),
    ("Mixed_5b.branch1x1.conv.weight", "Inception-v3"),
    ("trunk_output.block1.block1-0.f.a.0.weight", "RegNet"),
    ("stem.conv1.weight", "ResNet in detectron2's names"),
    ("embedder.embedder.convolution.weight", "ResNet in the names of transformers"),
)
"""Name that ends the first tensor of a network -> its family."""


def prefixes(names: Mapping[str, object], ending: str) -> Iterator[str]:
    """Beginnings of the names that end in `ending`, or are it."""
    for name in names:
        if name == ending or name.endswith(f".{ending}"):
            yield name.removesuffix(ending)


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> list[Network]:
    """List the networks that a file holds, in the order of their names; those that nothing is known of are left out.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shape of every tensor by its full name (`auto.flatten`).
    """
    shapes = Shapes(shapes)
    found: dict[str, Network] = {}
    for network in (*_vision_transformers(shapes), *_residual(shapes), *_staged(shapes), *_others(shapes)):
        found.setdefault(network.prefix, network)
    return [found[prefix] for prefix in sorted(found)]


_NUMBER = re.compile(r"\d{1,4}\.")


def _count(shapes: Shapes, start: str) -> int:
    """Number of different numbers that follow a beginning of names."""
    return len({match[0] for name in shapes.behind(start) if (match := _NUMBER.match(name, len(start)))})


def _residual(shapes: Shapes) -> Iterator[Network]:
    for names, first in (({}, "conv1.weight"), (NUMBERED, "0.weight"), ({}, "conv1.0.weight")):
        layers = [names.get(f"layer{stage}", f"layer{stage}") for stage in (1, 2, 3, 4)]
        for prefix in prefixes(shapes, first):
            block = f"{prefix}{layers[0]}.0."
            if f"{block}conv1.weight" not in shapes or len(shapes[f"{block}conv1.weight"]) != 4:
                continue
            counts = tuple(_count(shapes, f"{prefix}{layer}.") for layer in layers)
            yield _residual_network(shapes, prefix, block, shapes[prefix + first], counts, first)


def _residual_network(
    shapes: Shapes, prefix: str, block: str, stem: tuple[int, ...], counts: tuple[int, ...], first: str
) -> Network:
    blocks = "x".join(map(str, counts))
    notes = []
    own_names = first == "conv1.weight"
    if first == "conv1.0.weight":
        notes.append("with a stem of three convolutions")
    elif stem[2:] != (7, 7):
        notes.append(f"with a stem of {'x'.join(map(str, stem[2:]))}, as for small images")
    if f"{prefix}attnpool.k_proj.weight" in shapes:
        notes.append("of CLIP, which pools by attention")
    if any(".se." in name for name in shapes.behind(block)):
        notes.append("with squeeze and excitation")
    width = stem[0] if stem else 0
    if f"{block}conv3.weight" not in shapes:
        title = _BASIC.get(counts, f"ResNet of basic blocks {blocks}")
        arch = f"timm:{title.lower().replace('-', '')}" if counts in _BASIC and not notes and own_names else ""
        return Network(prefix, ", ".join([f"{title} (basic blocks, without conv3)", *notes]), arch)
    inner, grouped = shapes[f"{block}conv1.weight"][0], (*shapes.get(f"{block}conv2.weight", ()), 0, 0)[1]
    outer = shapes[f"{block}conv3.weight"][0]
    depth = _BOTTLENECK.get(counts)
    title = f"ResNet-{depth}" if depth else f"ResNet of bottleneck blocks {blocks}"
    arch = ""
    if grouped and grouped != inner:
        title = f"ResNeXt{title.removeprefix('ResNet')} {inner // grouped}x{grouped}d"
        if (depth, inner // grouped, grouped) in _RESNEXT and not notes and own_names:
            arch = f"timm:resnext{depth}_{inner // grouped}x{grouped}d"
    elif inner * 4 == outer and inner == width:
        arch = "" if notes else "resnet50" if (depth, width) == (50, 64) else f"resnet-{blocks}-w{width}"
        if width != 64:
            title += f" of width {width}"
    elif inner * 2 == outer:
        title = f"Wide {title}-2"
        arch = f"timm:wide_resnet{depth}_2" if depth in (50, 101) and not notes and own_names else ""
    else:
        notes.append(f"with blocks of {inner} and {outer} channels behind a stem of {width}")
    return Network(prefix, ", ".join([title, *notes]), arch)


def _known(arch: str) -> str:
    """Return an `arch` of timm if there is such a network, else an empty text."""
    return arch if arch and is_network(parse_architecture(arch).name) else ""


def _vision_transformers(shapes: Shapes) -> Iterator[Network]:
    for embedding, blocks in _VIT_PATCHES:
        for prefix in prefixes(shapes, embedding):
            shape = shapes[prefix + embedding]
            depth = _count(shapes, prefix + blocks)
            if len(shape) == 4 and depth:
                width, patch = shape[0], shape[2]
                if (width, depth) in _HIERA and patch == _HIERA_PATCH:
                    name = _HIERA[width, depth]
                    yield Network(prefix, f"Hiera-{name}", f"timm:hiera_{name}_224")
                    continue
                size = _VIT_SIZES.get(width)
                name = f"ViT-{size}/{patch}" if size else f"vision transformer of width {width}, patch {patch}"
                usual = {"Ti": 12, "S": 12, "B": 12, "L": 24, "H": 32}.get(size or "", depth)
                if depth != usual:
                    yield Network(prefix, f"{name} of {depth} blocks")
                else:
                    yield Network(
                        prefix, name, _known(_timm_vision_transformer(shapes, prefix, embedding, size, patch))
                    )


def _timm_vision_transformer(shapes: Shapes, prefix: str, embedding: str, size: str | None, patch: int) -> str:
    """Return the `arch` of a vision transformer by the tensors beside its blocks; empty if none is known."""
    positions = shapes.get(f"{prefix}pos_embed", shapes.get(f"{prefix}positional_embedding", (0, 0)))
    side = math.isqrt(positions[-2] if len(positions) > 1 else 0) * patch
    vit = f"timm:vit_{_TIMM_SIZES.get(size or '')}_patch{patch}"

    def has(*names: str) -> bool:
        return any(prefix + name in shapes for name in names)

    if size not in _TIMM_SIZES or embedding not in ("patch_embed.proj.weight", "conv1.weight"):
        return ""
    if embedding == "conv1.weight":
        # OpenAI's file says of itself how large its images are; it computes with QuickGELU.
        openai = f"{prefix.removesuffix('visual.')}input_resolution" in shapes
        return f"{vit}_clip_{'quickgelu_' if openai else ''}{side}" if prefix.endswith("visual.") else ""
    if has("storage_tokens") or (has("reg_token") and not has("pos_embed")):
        return f"{vit}_dinov3{'_qkvb' if has('blocks.0.attn.qkv.bias', 'blocks.0.attn.q_bias') else ''}"
    if has("blocks.0.ls1.gamma") and patch == _DINOV2_PATCH:
        return f"{vit}{'_reg4' if has('register_tokens', 'reg_token') else ''}_dinov2"
    if has("blocks.0.attn.relative_position_bias_table"):
        return f"timm:beit_{_TIMM_SIZES[size]}_patch{patch}_224"
    if has("blocks.0.gamma_1", "blocks.0.ls1.gamma"):
        return f"timm:deit3_{_TIMM_SIZES[size]}_patch{patch}_{side}"
    if has("dist_token"):
        return f"timm:deit_{_TIMM_SIZES[size]}_distilled_patch{patch}_{side}"
    if has("attn_pool.latent"):
        return f"{vit}_siglip_{side}"
    if has("norm_pre.weight"):
        return f"{vit}_clip_{side}"
    heads = "(num_heads=12)" if size == "S" and prefix.endswith(("base_encoder.", "momentum_encoder.")) else ""
    return f"{vit}_{side}{heads}" if has("cls_token") else f"{vit}_gap_{side}"


def _staged(shapes: Shapes) -> Iterator[Network]:
    for family, first, stage in (
        ("ConvNeXt", "downsample_layers.0.0.weight", "stages.{}."),
        ("ConvNeXt", "stem.0.weight", "stages.{}.blocks."),
        ("Swin", "patch_embed.proj.weight", "layers.{}.blocks."),
    ):
        for prefix in prefixes(shapes, first):
            depths = tuple(_count(shapes, prefix + stage.format(number)) for number in range(4))
            if all(depths) and shapes[prefix + first]:
                size = _STAGED[family].get((depths, shapes[prefix + first][0]), "")
                title = f"{family}-{size}" if size else f"{family} of blocks {'x'.join(map(str, depths))}"
                yield Network(prefix, title, _known(_timm_staged(shapes, prefix, family, size)))


def _timm_staged(shapes: Shapes, prefix: str, family: str, size: str) -> str:
    """Return the `arch` of a ConvNeXt or Swin transformer; empty if none is known."""
    name = _TIMM_SIZES.get(size, {"T": "tiny"}.get(size))
    if not name:
        return ""
    if family == "ConvNeXt":
        second = any(".grn." in name for name in shapes.behind(f"{prefix}stages.0."))
        return f"timm:convnext{'v2' if second else ''}_{name}"
    table = shapes.get(f"{prefix}layers.0.blocks.0.attn.relative_position_bias_table", ())
    images = {13**2: "window7_224", 23**2: "window12_384"}.get(table[0] if table else 0)
    return f"timm:swin_{name}_patch4_{images}" if images else ""


def _others(shapes: Shapes) -> Iterator[Network]:
    for ending, title in _OTHERS:
        for prefix in prefixes(shapes, ending):
            yield Network(prefix, title)
    for prefix in prefixes(shapes, "features.0.0.weight"):  # as torchvision names them
        patches = shapes[f"{prefix}features.0.0.weight"][2:] == (4, 4)
        attention = shapes.behind(f"{prefix}features.1.0.attn.")
        yield Network(prefix, ("Swin" if attention else "ConvNeXt") if patches else "EfficientNet or MobileNet")
    for prefix in prefixes(shapes, "features.0.weight"):
        shape = shapes[f"{prefix}features.0.weight"]
        if shape == (64, 3, 3, 3):
            yield Network(prefix, "VGG")
        elif shape[:2] == (64, 3):
            yield Network(prefix, "AlexNet")
