"""Checkpoints of transformers and other networks of timm, written as their authors publish them."""

import csv
import re
from pathlib import Path

import published_files as published
import pytest
import timm
import torch
from safetensors.torch import save_file

from ssltransfer.checkpoints.auto import flatten
from ssltransfer.checkpoints.convert import convert, read_published
from ssltransfer.checkpoints.inspection import inspect_checkpoint
from ssltransfer.checkpoints.recognition import recognise
from ssltransfer.errors import InputError
from ssltransfer.files import file_hash, package_data
from ssltransfer.models.architecture import parse_architecture
from ssltransfer.models.backbone_file import build_backbone, expected_state, load_backbone
from ssltransfer.models.timm_catalog import find_network
from ssltransfer.results.tensor_file import save_tensors

P, LINEAR = published.prefixed, published.linear

SMALL = "timm:vit_small_patch16_224(depth=2)"
HEADS12 = "timm:vit_small_patch16_224(depth=2,num_heads=12)"
DINOV2 = "timm:vit_small_patch14_dinov2(depth=2)"
REGISTERS = "timm:vit_small_patch14_reg4_dinov2(depth=2)"
DINOV3, DINOV3_BIAS = "timm:vit_small_patch16_dinov3(depth=2)", "timm:vit_small_patch16_dinov3_qkvb(depth=2)"
JEPA = "timm:vit_huge_patch14_gap_224(depth=1,embed_dim=64)"
CLIP = "timm:vit_base_patch32_clip_224(depth=1)"
QUICK = "timm:vit_base_patch32_clip_quickgelu_224(depth=1)"
SIGLIP = "timm:vit_base_patch16_siglip_224(depth=1)"
BEIT = "timm:beit_base_patch16_224(depth=1)"
DEIT3 = "timm:deit3_small_patch16_224(depth=1)"
SWIN, CONVNEXT = "timm:swin_tiny_patch4_window7_224(embed_dim=24)", "timm:convnext_atto"
FCMAE, HIERA = "timm:convnextv2_atto", "timm:hiera_tiny_224(embed_dim=24,num_heads=1)"


def random(arch, seed=0):
    """Tensors of a network, all of them random: none is like another, or like an untrained one."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(tensor.shape, generator=generator) + 0.1 if tensor.is_floating_point() else tensor.clone()
        for name, tensor in ((name, torch.zeros(t.shape, dtype=t.dtype)) for name, t in expected_state(arch).items())
    }


def renamed(state, *pairs):
    """Replace parts of all names, one after the other."""
    result = {}
    for name, tensor in state.items():
        for old, new in pairs:
            name = re.sub(old, new, name)
        result[name] = tensor
    return result


def clip(state):
    """Image tower of OpenAI's code, beside a text tower and projections."""
    tensors = renamed(
        state,
        ("^patch_embed.proj", "conv1"),
        ("^pos_embed", "positional_embedding"),
        ("^cls_token", "class_embedding"),
        ("^norm_pre", "ln_pre"),
        ("^norm", "ln_post"),
        ("^blocks", "transformer.resblocks"),
        (r"norm(\d)", r"ln_\1"),
        ("attn.qkv.", "attn.in_proj_"),
        ("attn.proj", "attn.out_proj"),
        (r"mlp.fc1", "mlp.c_fc"),
        (r"mlp.fc2", "mlp.c_proj"),
    )
    tensors["class_embedding"] = tensors["class_embedding"][0, 0]
    tensors["positional_embedding"] = tensors["positional_embedding"][0]
    text = {"positional_embedding": torch.zeros(77, 8), "transformer.resblocks.0.ln_1.weight": torch.zeros(8)}
    return P(tensors, "visual.") | text | {"visual.proj": torch.zeros(768, 512), "logit_scale": torch.tensor(1.0)}


def dinov2_registers(state):
    """The class token has a position of its own, which timm adds to it."""
    tensors = dict(state)
    position = torch.full((1, 1, 384), 0.25)
    tensors["pos_embed"] = torch.cat([position, tensors["pos_embed"]], dim=1)
    tensors["cls_token"] = tensors["cls_token"] - position
    tensors["register_tokens"] = tensors.pop("reg_token")
    return tensors | {"mask_token": torch.zeros(1, 384)}


def dinov3(state, biases):
    """Fused biases of query, key and value (the key's masked), buffers, and other names."""
    tensors = renamed(state, ("gamma_", "ls"), (r"(ls\d)$", r"\1.gamma"), ("reg_token", "storage_tokens"))
    for block in range(2):
        name = f"blocks.{block}.attn"
        zeros = torch.zeros(384)
        parts = [tensors.pop(f"{name}.{part}_bias", zeros) for part in "qv"]
        tensors[f"{name}.qkv.bias"] = torch.cat([parts[0], zeros, parts[1]]) + biases
        tensors[f"{name}.qkv.bias_mask"] = torch.ones(3 * 384)
    return tensors | {"mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.ones(16)}


def swin(state):
    """Microsoft's stages end, and timm's begin, with the downsampling."""
    tensors = renamed(state, (r"layers.1.downsample", "layers.0.downsample"))
    for stage in (2, 3):
        tensors = renamed(tensors, (rf"layers.{stage}.downsample", f"layers.{stage - 1}.downsample"))
    tensors["layers.0.blocks.1.attn_mask"] = torch.ones(64, 49, 49)
    tensors["layers.0.blocks.0.attn.relative_position_index"] = torch.ones(49, 49, dtype=torch.long)
    return {"model": tensors | LINEAR("head", 10, 768)}


def convnext(state):
    tensors = renamed(
        state,
        (r"^stem.(\d)", r"downsample_layers.0.\1"),
        (r"^stages.(\d).downsample", r"downsample_layers.\1"),
        (r"^stages.(\d).blocks", r"stages.\1"),
        ("conv_dw", "dwconv"),
        ("mlp.fc", "pwconv"),
        ("mlp.grn.bias", "grn.beta"),
        ("mlp.grn.weight", "grn.gamma"),
        ("^head.norm", "norm"),
    )
    return {name: tensor[None, None, None] if "grn." in name else tensor for name, tensor in tensors.items()}


def xcit(state):
    """Facebook's class attention has one matrix for query, key and value."""
    tensors = renamed(state, ("^pos_embed", "pos_embeder"))
    for block in range(2):
        name = f"cls_attn_blocks.{block}.attn"
        for entry in ("weight", "bias"):
            tensors[f"{name}.qkv.{entry}"] = torch.cat([tensors.pop(f"{name}.{part}.{entry}") for part in "qkv"])
    return tensors


LAYOUTS = {
    # name -> arch, writer, format, prefix
    "DINO": (SMALL, lambda s: s, "auto", ""),
    "DINO, whole": (
        SMALL,
        lambda s: {
            "student": P(random(SMALL, 1), "module.backbone.") | LINEAR("module.head.mlp.0", 8, 384),
            "teacher": P(s, "backbone.") | LINEAR("head.mlp.0", 8, 384),
            "epoch": 100,
        },
        "auto:teacher",
        "teacher.backbone.",
    ),
    "iBOT": (SMALL, lambda s: {"state_dict": s | {"masked_embed": torch.zeros(1, 384)}}, "auto", "state_dict."),
    "MAE, with its decoder": (
        SMALL,
        lambda s: {
            "model": s
            | {"mask_token": torch.zeros(1, 1, 512), "decoder_pos_embed": torch.zeros(1, 197, 512)}
            | P(LINEAR("mlp.fc1", 8, 8), "decoder_blocks.0.")
        },
        "auto",
        "model.",
    ),
    "MoCo-v3": (
        HEADS12,
        lambda s: (
            published.trainer_extras(s)
            | {
                "state_dict": P(s | LINEAR("head.0", 8, 384), "module.base_encoder.")
                | P(random(HEADS12, 1), "module.momentum_encoder.")
            }
        ),
        "auto:state_dict.module.base_encoder.",
        "state_dict.module.base_encoder.",
    ),
    "MSN": (
        SMALL,
        lambda s: {
            "encoder": P(random(SMALL, 1) | LINEAR("fc.fc1", 8, 384), "module."),
            "target_encoder": P(s | LINEAR("fc.fc1", 8, 384), "module."),
            "prototypes": torch.zeros(4, 4),
        },
        "auto:target_encoder",
        "target_encoder.module.",
    ),
    "I-JEPA": (
        JEPA,
        lambda s: {
            "encoder": P(random(JEPA, 1), "module."),
            "target_encoder": P(s, "module."),
            "predictor": P(LINEAR("predictor_embed", 8, 64), "module."),
        },
        "auto:target_encoder.",
        "target_encoder.module.",
    ),
    "DINOv2": (DINOV2, lambda s: s | {"mask_token": torch.zeros(1, 384)}, "auto", ""),
    "DINOv2 with registers": (REGISTERS, dinov2_registers, "auto", ""),
    "DINOv3, biases that are zero": (DINOV3, lambda s: dinov3(s, 0.0), "auto", ""),
    "DINOv3, with biases": (DINOV3_BIAS, lambda s: dinov3(s, 0.0), "auto", ""),
    "CLIP": (QUICK, lambda s: clip(s) | {"input_resolution": torch.tensor(224)}, "auto", "visual."),
    "OpenCLIP": (
        SIGLIP,
        lambda s: P(s, "visual.trunk.") | {"logit_scale": torch.tensor(1.0), "text.token_embedding": torch.zeros(4)},
        "auto",
        "visual.trunk.",
    ),
    "BEiT": (
        BEIT,
        lambda s: {
            "model": s
            | LINEAR("head", 10, 768)
            | {"blocks.0.attn.relative_position_index": torch.ones(197, 197, dtype=torch.long)}
        },
        "auto",
        "model.",
    ),
    "DeiT-III": (
        DEIT3,
        lambda s: {"model": renamed(s, (r"ls(\d).gamma", r"gamma_\1")) | LINEAR("head", 10, 384)},
        "auto",
        "model.",
    ),
    "Swin": (SWIN, swin, "auto", "model."),
    "ConvNeXt": (CONVNEXT, lambda s: {"model": convnext(s) | LINEAR("head", 10, 320)}, "auto", "model."),
    "ConvNeXt V2, finetuned": (FCMAE, lambda s: {"model": convnext(s) | LINEAR("head", 10, 320)}, "auto", "model."),
    "Hiera": (
        HIERA,
        lambda s: {
            "model_state": renamed(s, ("^head.norm", "encoder_norm")) | {"decoder_pos_embed": torch.zeros(1, 49, 8)}
        },
        "auto",
        "model_state.",
    ),
    "DINO, XCiT": ("timm:xcit_small_12_p16_224(depth=1)", xcit, "auto", ""),
    "ResNet-18 of torchvision": ("torchvision:resnet18", lambda s: s | LINEAR("fc", 10, 512), "auto", ""),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_authors(tmp_path, name):
    arch, write, format, prefix = LAYOUTS[name]
    state = random(arch)
    torch.save(write(state), tmp_path / "f.pth")
    read = read_published([tmp_path / "f.pth"], format, arch)
    assert read.prefix == prefix and read.state.keys() == state.keys()
    for key, tensor in state.items():
        torch.testing.assert_close(read.state[key], tensor, rtol=0, atol=1e-6 if key == "cls_token" else 0)


TWO = ["DINO, whole", "MoCo-v3", "MSN", "I-JEPA"]


@pytest.mark.parametrize("name", TWO)
def test_two_networks_in_a_file_are_named_with_the_cells_that_choose(tmp_path, name):
    arch, write, _, prefix = LAYOUTS[name]
    torch.save(write(random(arch)), tmp_path / "f.pth")
    with pytest.raises(InputError, match=f"differ, behind .*auto:{re.escape(prefix)}"):
        read_published([tmp_path / "f.pth"], "auto", arch)


def larger(state):
    return state | P({name[9:]: t for name, t in state.items() if name.startswith("blocks.1.")}, "blocks.2.")


MISFITS = {
    "a tensor is missing": (
        SMALL,
        lambda s: {"state_dict": {name: t for name, t in s.items() if name != "norm.bias"}},
        ["'state_dict.'", "1 tensors", "norm.bias"],
    ),
    "a block too many": (SMALL, lambda s: P(larger(s), "m."), ["blocks.2.norm1.weight", "ViT-S/16 of 3 blocks"]),
    "a block too many, in the authors' names": (
        QUICK,
        lambda s: clip(s) | {"visual.transformer.resblocks.1.ln_1.weight": torch.ones(768)},
        ["visual.transformer.resblocks.1.ln_1.weight"],
    ),
    "a bias that the network has not": (DINOV3, lambda s: dinov3(s, 1.0), ["blocks.0.attn.qkv.bias", "dinov3"]),
    "positions of another size": (
        "timm:vit_small_patch16_384(depth=2)",
        lambda s: s | {"pos_embed": torch.ones(1, 197, 384)},
        ["(1, 197, 384)", "224 pixels", "write arch timm:vit_small_patch16_224"],
    ),
    "positions of another size, in the authors' names": (
        CLIP,
        lambda s: clip(s | {"pos_embed": torch.ones(1, 145, 768)}),
        ["(145, 768)", "384 pixels", "timm:vit_base_patch32_clip_384"],
    ),
    "registers that the network has not": (DINOV2, lambda s: dinov2_registers(random(REGISTERS)), ["register_tokens"]),
    "a norm that the network has not": (
        "timm:vit_base_patch32_224(depth=1)",
        lambda s: random(CLIP) | {"patch_embed.proj.bias": torch.ones(768)},
        ["norm_pre.weight"],
    ),
    "no final norm": (
        FCMAE,
        lambda s: convnext({name: t for name, t in s.items() if not name.startswith("head.norm")}),
        ["head.norm", "FCMAE", "finetuned"],
    ),
    "another network": (SMALL, lambda s: random("timm:resnet18"), ["ResNet-18", "write arch timm:resnet18"]),
    "names of transformers": (
        SMALL,
        lambda s: (
            {"vit.embeddings.patch_embeddings.projection.weight": torch.zeros(384, 3, 16, 16)}
            | {f"vit.encoder.layer.{i}.output.dense.bias": torch.zeros(384) for i in range(12)}
        ),
        ["ViT-S/16", "source timm:NAME.TAG"],
    ),
    "nothing alike": (SMALL, lambda s: {"w": torch.zeros(3)}, ["'w'", "arch"]),
    "no tensors": (SMALL, lambda s: {"epoch": 3}, ["'epoch'", "state_dict()"]),
    "not finite": (SMALL, lambda s: s | {"norm.bias": torch.full((384,), torch.nan)}, ["norm.bias", "finite"]),
    "double precision": (SMALL, lambda s: s | {"norm.bias": torch.ones(384).double()}, ["norm.bias", "float64"]),
    "without values": (SMALL, lambda s: s | {"norm.bias": torch.empty(384, device="meta")}, ["norm.bias"]),
    "MoCo-v3 with 6 heads": (
        SMALL,
        lambda s: P(s, "module.base_encoder."),
        ["MoCo-v3", "timm:vit_small_patch16_224(num_heads=12)"],
    ),
    "OpenAI's CLIP without QuickGELU": (
        CLIP,
        lambda s: clip(s) | {"input_resolution": torch.tensor(224)},
        ["QuickGELU", "timm:vit_base_patch32_clip_quickgelu_224"],
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_misfits_are_one_line_with_the_next_step(tmp_path, name):
    arch, write, words = MISFITS[name]
    torch.save(write(random(arch)), tmp_path / "f.pth")
    with pytest.raises(InputError) as error:
        read_published([tmp_path / "f.pth"], "auto", arch)
    text = str(error.value)
    assert text.startswith(f"{tmp_path}/f.pth") and "\n" not in text and len(text) < 600 + len(str(tmp_path))
    assert all(word in text for word in words), text
    assert ";" in text.partition("f.pth")[2], "the next step"


def test_six_heads_may_be_meant(tmp_path):
    state = random(SMALL)
    torch.save(P(state, "module.base_encoder."), tmp_path / "f.pth")
    explicit = SMALL.replace(")", ",num_heads=6)")
    assert read_published([tmp_path / "f.pth"], "auto", explicit).state.keys() == state.keys()


def test_clip_says_what_its_file_does_not_tell(tmp_path, caplog):
    torch.save(clip(random(CLIP)), tmp_path / "f.pth")
    read_published([tmp_path / "f.pth"], "auto", CLIP)
    assert any("activation" in m and "timm:vit_base_patch32_clip_quickgelu_224" in m for m in caplog.messages)


def test_formats_of_resnets_are_refused(tmp_path):
    torch.save(random(SMALL), tmp_path / "f.pth")
    with pytest.raises(InputError, match=r"'moco-v3', which is of ResNets .*; leave the cell empty"):
        read_published([tmp_path / "f.pth"], "moco-v3", SMALL)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_and_says_so(tmp_path, caplog, dtype):
    state = random(SMALL)
    save_file({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "model.safetensors")
    file = {"name": "model.safetensors", "source": "x", "size": (tmp_path / "model.safetensors").stat().st_size}
    manifest = {"files": [file | {"sha256": file_hash(tmp_path / "model.safetensors")}]}
    row = {"arch": SMALL, "format": "auto", "version": "1", "source": "x"}
    tensors, provenance = convert(manifest, tmp_path, row, "m")
    name = str(dtype).removeprefix("torch.")
    assert provenance["precision"] == name and provenance["timm"].startswith("1.")
    assert any(name in message and "float32" in message for message in caplog.messages)
    assert all(torch.equal(tensors[key], tensor.to(dtype).float()) for key, tensor in state.items())


def test_a_converted_network_is_the_one_that_was_saved(tmp_path):
    """Weights, head and all, from timm's own file to features."""
    network = build_backbone(SMALL, seed=0).eval()
    state = network.tensors() | LINEAR("head", 10, 384)
    save_file(state, tmp_path / "model.safetensors")
    read = read_published([tmp_path / "model.safetensors"], "auto", SMALL)
    assert read.dropped == ["head.bias", "head.weight"]
    save_tensors(read.state, tmp_path / "converted.safetensors", {"arch": SMALL})
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        loaded = load_backbone(tmp_path / "converted.safetensors", SMALL)
        torch.testing.assert_close(loaded(images), network(images), rtol=0, atol=0)


def modern():
    """Rows of the suite `modern` with weights of timm, one for each network."""
    with Path(package_data("config/models.tsv")).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if "modern" in (row["suites"] or "")]
    return {row["arch"]: row for row in rows if row["source"].startswith("timm:") and not row["format"]}


@pytest.mark.slow
@pytest.mark.parametrize("arch", modern())
def test_networks_of_the_modern_suite_are_read_from_the_files_of_timm(tmp_path, arch):
    """With the classifier and number of blocks of the published file, but of transformers one block."""
    row = modern()[arch]
    name = row["source"].removeprefix("timm:")
    if find_network(arch).tokens:
        arch = arch.replace(")", ",depth=1)") if "(" in arch else f"{arch}(depth=1)"
    arguments = parse_architecture(arch).arguments
    own = {key: value for key, value in arguments.items() if key != "resample"}
    torch.manual_seed(0)
    published = timm.create_model(name, pretrained=False, **own)
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    read = read_published([tmp_path / "model.safetensors"], "auto", arch)
    assert all(torch.equal(tensor, published.state_dict()[key]) for key, tensor in read.state.items())
    classifier = set(published.state_dict()) - set(read.state)
    assert set(read.dropped) == classifier and all(key.startswith(("head", "fc", "classifier")) for key in classifier)
    save_tensors(read.state, tmp_path / "converted.safetensors", {"arch": arch})
    side = int(row["size"] or 224)
    loaded = load_backbone(tmp_path / "converted.safetensors", arch, row["pool"] or "", side)
    with torch.inference_mode():
        assert loaded(torch.rand(1, 3, side, side)).shape == (1, find_network(row["arch"]).width)


def full(arch):
    """The arch without arguments that make it small."""
    return re.sub(r"depth=\d+,?", "", arch).replace("()", "")


RECOGNISED = {
    **{name: full(LAYOUTS[name][0]) for name in ("DINO", "MAE, with its decoder", "MoCo-v3", "MSN", "DINOv2")},
    **{name: full(LAYOUTS[name][0]) for name in ("DINOv2 with registers", "DINOv3, with biases", "CLIP", "OpenCLIP")},
    **{name: full(LAYOUTS[name][0]) for name in ("BEiT", "DeiT-III")},
    "Swin": "timm:swin_tiny_patch4_window7_224",
    "ConvNeXt": "timm:convnext_tiny",
    "ConvNeXt V2, finetuned": "timm:convnextv2_base",
    "Hiera": "timm:hiera_tiny_224",
    "ResNet-18 of torchvision": "timm:resnet18",
}


@pytest.mark.parametrize("name", RECOGNISED)
def test_networks_are_recognised_in_the_layouts_of_their_authors(name):
    _, write, _, prefix = LAYOUTS[name]
    arch = RECOGNISED[name]
    with torch.device("meta"):
        content = flatten(write(dict(expected_state(arch))), Path("f.pth"))
    found = {network.prefix: network.arch for network in recognise(content.shapes)}
    assert found[prefix] == arch


def test_an_inspection_names_arch_and_readouts(tmp_path):
    arch = "timm:vit_tiny_patch16_224"
    torch.save({"teacher": P(random(arch), "backbone.")}, tmp_path / "f.pth")
    found = inspect_checkpoint(tmp_path / "f.pth")
    assert found.loads and found.arch == arch, found.problem
    assert found.row("mine").split("\t") == ["mine", "", "", arch, f"file:{tmp_path}/f.pth"]
    assert "pool: empty for the network's own readout (192 values), or cls, mean, cls-mean, layers-N" in str(found)
    assert "unknown" not in str(found)
    found = inspect_checkpoint(tmp_path / "f.pth", "timm:vit_tiny_patch16_42")
    assert not found.loads and "vit_tiny_patch16_42" in found.problem


def test_a_network_of_own_code_is_read_strictly(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    arch = f"python:{tmp_path}/net.py:make"
    state = random(arch)
    torch.save({"model": P(state, "module.")}, tmp_path / "f.pth")
    read = read_published([tmp_path / "f.pth"], "auto", arch)
    assert read.prefix == "model.module." and all(torch.equal(read.state[key], state[key]) for key in state)
    torch.save({key: tensor for key, tensor in state.items() if key != "1.bias"}, tmp_path / "f.pth")
    with pytest.raises(InputError, match=r"1 tensors of python:.* are missing, first 1\.bias; write"):
        read_published([tmp_path / "f.pth"], "auto", arch)


def test_given_features_have_no_file_of_weights(tmp_path):
    torch.save(random(SMALL), tmp_path / "f.pth")
    with pytest.raises(InputError, match="arch: found none"):
        read_published([tmp_path / "f.pth"], "auto", "none")


def test_an_inspection_names_the_beginning_of_names_only_where_there_is_one(tmp_path):
    for prefix, said in (("", False), ("backbone.", True)):
        torch.save(P(random("timm:resnet18"), prefix), tmp_path / "f.pth")
        found = inspect_checkpoint(tmp_path / "f.pth")
        assert len(found.networks) == 1 and (", behind " in str(found)) == said
