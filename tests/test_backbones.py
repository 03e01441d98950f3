"""Networks of timm as backbones: the same numbers as timm's own, each norm applied once, strict loading."""

import math
import warnings

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from ssltransfer.errors import InputError
from ssltransfer.models import timm_catalog
from ssltransfer.models.architecture import TWINS, parse_architecture
from ssltransfer.models.backbone_file import build_backbone, expected_state, load_backbone
from ssltransfer.models.fusion import optimise_for_inference
from ssltransfer.models.model_row import check_size
from ssltransfer.models.readout import parse_pool
from ssltransfer.results.tensor_file import save_tensors

SMALL = "depth=2,embed_dim=48,num_heads=3"
#: One network of each family; arguments make plain transformers small, the others are the smallest of their kind.
FAMILIES = {
    "ResNet": "resnet18",
    "ResNeXt": "resnext50_32x4d",
    "EfficientNet": "efficientnet_b0",
    "MobileNet": "mobilenetv3_small_050",
    "RegNet": "regnetx_002",
    "ConvNeXt": "convnext_atto",
    "ConvNeXt V2": "convnextv2_atto",
    "Swin": "swin_tiny_patch4_window7_224(embed_dim=24)",
    "ViT": f"vit_small_patch16_224({SMALL})",
    "DeiT, distilled": f"deit_tiny_distilled_patch16_224({SMALL})",
    "DINOv2 with registers": f"vit_small_patch14_reg4_dinov2({SMALL})",
    "DINOv3": f"vit_small_patch16_dinov3({SMALL})",
    "MAE": f"vit_base_patch16_224({SMALL})",
    "CLIP": f"vit_base_patch16_clip_quickgelu_224({SMALL})",
    "SigLIP": f"vit_base_patch16_siglip_224({SMALL})",
    "BEiT": f"beit_base_patch16_224({SMALL})",
    "EVA-02": f"eva02_tiny_patch14_224({SMALL})",
    "Hiera": "hiera_tiny_224(embed_dim=24,num_heads=1)",
    "XCiT": "xcit_nano_12_p16_224(depth=2)",
}
TOKENS = [name for name, network in FAMILIES.items() if SMALL in network]


def trained(arch, pool=""):
    """A backbone whose weights and statistics are random, those of norms too, so that a skipped norm shows."""
    backbone = build_backbone(f"timm:{arch}", pool, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in backbone.tensors().items():
        if ("norm" in name or ".bn" in name or "running" in name) and tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return backbone


def images(backbone, number=3, side=None):
    side = side or backbone.native_size or 64
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(2))


#: Families that are tested without the option -m "not slow" only.
LARGE = (
    "ResNeXt",
    "EfficientNet",
    "MobileNet",
    "RegNet",
    "ConvNeXt V2",
    "Swin",
    "Hiera",
    "XCiT",
    "BEiT",
    "DeiT, distilled",
)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in FAMILIES]
)
def family(request):
    arch = FAMILIES[request.param]
    return arch, trained(arch)


@torch.inference_mode()
def test_features_are_those_of_timm(family):
    """Loaded strictly with a classifier, which is then taken away: timm's documented way to features."""
    arch, backbone = family
    architecture = parse_architecture(f"timm:{arch}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = timm.create_model(architecture.name, num_classes=7, **architecture.arguments).eval()
    head = {k: v for k, v in reference.state_dict().items() if k not in backbone.tensors()}
    reference.load_state_dict(backbone.tensors() | head)
    assert 0 < len(head) <= 4  # weight and bias of a classifier, two of a distilled transformer
    x = images(backbone)
    expected = reference.forward_head(reference.forward_features(x), pre_logits=True)
    reference.reset_classifier(0)
    found = optimise_for_inference(backbone)(x)
    scale = expected.abs().max()
    assert found.shape == (3, backbone.width)
    assert (found - expected).abs().max() <= 1e-5 * scale
    assert (reference(x) - expected).abs().max() <= 1e-5 * scale


@torch.inference_mode()
def test_features_do_not_depend_on_the_batch_or_on_threads(family):
    _, backbone = family
    x, threads = images(backbone), torch.get_num_threads()
    together = backbone(x)
    alone = torch.cat([backbone(image[None]) for image in x])
    try:
        torch.set_num_threads(1)
        single = backbone(x)
    finally:
        torch.set_num_threads(threads)
    for other in (alone, single):
        assert (other - together).abs().max() <= 1e-5 * together.abs().max()


@torch.inference_mode()
def test_maps_have_the_strides_and_channels_that_are_promised(family):
    _, backbone = family
    x = images(backbone, 1)
    side = x.shape[-1]
    shapes = [tuple(output.shape[1:]) for output in backbone.maps(x)]
    assert shapes == [
        (channels, side // stride, side // stride)
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    assert backbone.strides == tuple(sorted(backbone.strides))


def test_stages_hold_every_parameter_once(family):
    _, backbone = family
    listed = [id(parameter) for stage in backbone.stages() for parameter in stage]
    assert sorted(listed) == sorted(map(id, backbone.parameters())) and len(backbone.stages()) > 1


@torch.inference_mode()
def test_a_converted_checkpoint_gives_the_same_features(family, tmp_path):
    arch, backbone = family
    save_tensors(backbone.tensors(), tmp_path / "x.safetensors", {})
    x = images(backbone, 1)
    loaded = load_backbone(tmp_path / "x.safetensors", f"timm:{arch}", size=x.shape[-1])
    assert torch.equal(loaded(x), backbone(x))


def test_a_missing_or_strange_tensor_is_an_error(family, tmp_path):
    arch, backbone = family
    state = dict(backbone.tensors())
    name = sorted(name for name in state if name.endswith("weight"))[len(state) // 4]
    save_tensors({k: v for k, v in state.items() if k != name}, tmp_path / "less.safetensors", {})
    with pytest.raises(InputError, match=f"1 tensors of .* are missing, first {name}"):
        load_backbone(tmp_path / "less.safetensors", f"timm:{arch}")
    save_tensors(state | {"head.weight": torch.zeros(2, 2)}, tmp_path / "more.safetensors", {})
    with pytest.raises(InputError, match=r"do not belong to .*, first head\.weight"):
        load_backbone(tmp_path / "more.safetensors", f"timm:{arch}")
    save_tensors(state | {name: torch.zeros(2, 2)}, tmp_path / "other.safetensors", {})
    with pytest.raises(InputError, match=rf"{name} has shape \(2, 2\)"):
        load_backbone(tmp_path / "other.safetensors", f"timm:{arch}")


def test_the_catalog_describes_the_network(family):
    arch, backbone = family
    known = timm_catalog.find_network(f"timm:{arch}")
    assert (known.tokens, known.native_size) == (backbone.has_tokens, backbone.native_size)
    if "embed_dim" not in arch or known.tokens:
        assert (known.width, known.strides, known.channels) == (backbone.width, backbone.strides, backbone.channels)


@pytest.mark.parametrize(
    "arguments", ["", "(depth=6)", "(embed_dim=96,num_heads=3)", "(depth=4,embed_dim=96,num_heads=3)"]
)
def test_the_catalog_knows_about_how_many_parameters_arguments_leave(arguments):
    arch = f"timm:vit_tiny_patch16_224{arguments}"
    expected = sum(tensor.numel() for tensor in build_backbone(arch).tensors().values())
    assert timm_catalog.find_network(arch).parameters == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("name", TOKENS)
@torch.inference_mode()
def test_readouts_by_hand(name):
    """Class token and mean of the patches, written out for both places of the final norm."""
    arch = FAMILIES[name]
    own = trained(arch)
    net, x = own.network, images(own, 2)
    tokens, prefix = net.forward_features(x), getattr(net, "num_prefix_tokens", 0)
    late = isinstance(net.norm, nn.Identity)
    if late:  # BEiT and EVA-02 norm after pooling
        weight, bias = net.fc_norm.weight, net.fc_norm.bias
        norm = lambda vector: functional.layer_norm(vector, (48,), weight, bias, net.fc_norm.eps)  # noqa: E731
        plain = tokens
    else:  # what comes before the norm, normed by hand
        before = []
        handle = net.norm.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0]))
        net.forward_features(x)
        handle.remove()
        plain = functional.layer_norm(before[0], (48,), net.norm.weight, net.norm.bias, net.norm.eps)
        norm = lambda vector: vector  # noqa: E731
    expected = {"mean": norm(plain[:, prefix:].mean(1))}
    if net.cls_token is not None:
        expected["cls"] = norm(plain[:, 0])
        expected["cls-mean"] = torch.cat([expected["cls"], expected["mean"]], dim=1)
    for number in range(prefix):
        expected[f"token-{number}"] = norm(plain[:, number])
    for pool, vector in expected.items():
        backbone = build_backbone(f"timm:{arch}", pool)
        backbone.load_tensors(own.tensors())
        found = backbone.eval()(x)
        known = timm_catalog.pooled_width(timm_catalog.find_network(f"timm:{arch}"), parse_pool(pool))
        assert found.shape == (2, backbone.width) and backbone.width == known
        assert (found - vector).abs().max() <= 1e-5 * vector.abs().max(), pool


@torch.inference_mode()
def test_last_layers_are_normed_class_tokens():
    """DINO's linear evaluation: the class token of each of the last blocks, normed, one after the other."""
    own = trained(FAMILIES["ViT"])
    net, x = own.network, images(own, 2)
    outputs = []
    handles = [
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output)) for block in net.blocks
    ]
    net.forward_features(x)
    for handle in handles:
        handle.remove()
    expected = torch.cat([net.norm(output)[:, 0] for output in outputs], dim=1)
    backbone = build_backbone(f"timm:{FAMILIES['ViT']}", "layers-2")
    backbone.load_tensors(own.tensors())
    assert torch.allclose(backbone.eval()(x), expected, atol=1e-6) and backbone.width == 96


@pytest.mark.parametrize(
    ("arch", "pool", "message"),
    [
        ("resnet18", "mean", "has no tokens"),
        ("convnext_atto", "cls", "has no tokens"),
        (FAMILIES["SigLIP"], "cls", "has no class token; write mean"),
        (FAMILIES["ViT"], "token-1", "has 1 tokens beside its patches"),
        (FAMILIES["ViT"], "layers-3", "has 2 blocks"),
        ("xcit_nano_12_p16_224", "layers-2", "has no blocks whose class tokens can be read"),
    ],
)
def test_a_readout_that_the_network_does_not_have(arch, pool, message):
    with pytest.raises(InputError, match=message):
        build_backbone(f"timm:{arch}", pool)
    with pytest.raises(InputError, match=message):
        timm_catalog.pooled_width(timm_catalog.find_network(f"timm:{arch}"), parse_pool(pool))


def test_pools_that_are_no_readouts():
    for text in ("avg", "CLS", "token", "layers-0", "mean-cls"):
        with pytest.raises(InputError, match="expected cls, mean"):
            parse_pool(text)


@torch.inference_mode()
def test_position_embeddings_of_another_size_are_those_of_timm(tmp_path):
    arch = FAMILIES["DINOv2 with registers"]
    own = trained(arch)
    save_tensors(own.tensors(), tmp_path / "x.safetensors", {})
    x = images(own, 1, 224)
    resized = load_backbone(tmp_path / "x.safetensors", f"timm:{arch}", size=224)
    architecture = parse_architecture(f"timm:{arch}")
    dynamic = timm.create_model(
        architecture.name, num_classes=0, dynamic_img_size=True, **architecture.arguments
    ).eval()
    dynamic.load_state_dict(own.tensors())
    assert torch.equal(resized(x), dynamic(x)) and resized.native_size == 224


@torch.inference_mode()
def test_position_embeddings_of_another_size_as_the_authors_of_dino(tmp_path):
    """Restates `interpolate_pos_encoding` of DINO and DINOv2: bicubic by a factor with an offset, not antialiased."""
    arch = f"vit_small_patch14_dinov2({SMALL})"
    own = trained(arch)
    own.network.pos_embed.normal_(generator=torch.Generator().manual_seed(3))
    save_tensors(own.tensors(), tmp_path / "x.safetensors", {})
    resampled = load_backbone(
        tmp_path / "x.safetensors", f"timm:vit_small_patch14_dinov2({SMALL},resample=dino)", size=224
    )
    native = own.network.pos_embed
    grid = native[:, 1:].reshape(1, 37, 37, 48).permute(0, 3, 1, 2)
    expected = functional.interpolate(grid, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic", antialias=False)
    assert expected.shape[-2:] == (16, 16)
    assert torch.equal(resampled.network.pos_embed[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, 256, 48))
    assert torch.equal(resampled.network.pos_embed[:, :1], native[:, :1])
    timm_way = load_backbone(tmp_path / "x.safetensors", f"timm:vit_small_patch14_dinov2({SMALL})", size=224)
    assert (timm_way.network.pos_embed - resampled.network.pos_embed).abs().max() > 0.1  # timm smooths


def test_a_size_that_no_whole_patches_fill():
    """timm would drop the last pixels without a word."""
    with pytest.raises(InputError, match="images of 230 pixels, expected a multiple of its patch of 14"):
        build_backbone("timm:vit_small_patch14_dinov2", size=230)


@pytest.mark.parametrize("name", ["hiera_tiny_224", "maxvit_tiny_tf_224", "coatnet_0_rw_224", "gcvit_xxtiny"])
def test_a_size_that_windows_do_not_divide(name):
    check_size({"arch": f"timm:{name}"}, 96)
    with pytest.raises(
        InputError, match="images of 112 pixels, expected a multiple of its coarsest stride of 32; write"
    ):
        check_size({"arch": f"timm:{name}"}, 112)
    check_size({"arch": "timm:swin_tiny_patch4_window7_224"}, 112)


def test_quick_gelu_is_another_network():
    """OpenAI's CLIP weights in a network without quickgelu in its name load, and are wrong."""
    wrong, right = (trained(f"vit_base_patch16_clip{part}_224({SMALL})") for part in ("", "_quickgelu"))
    wrong.load_tensors(right.tensors())
    x = images(right, 1)
    assert (wrong(x) - right(x)).abs().max() > 1e-3


@pytest.mark.parametrize("name", [name for name in TWINS if name in ("resnet18", "densenet121")])
@torch.inference_mode()
def test_twins_of_torchvision_are_the_same_function(name):
    from torchvision.models import get_model

    reference = get_model(name, weights=None).eval()
    for part in reference.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)
    backbone = build_backbone(f"torchvision:{name}").eval()
    state = reference.state_dict()
    backbone.load_tensors({key: state[key] for key in backbone.tensors()})
    classifier = "classifier" if hasattr(reference, "classifier") else "fc"
    setattr(reference, classifier, nn.Identity())
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(backbone(x), reference(x), atol=1e-5)


@pytest.mark.slow
def test_all_twins_have_the_tensors_of_torchvision():
    from torchvision.models import get_model

    for name in TWINS:
        with torch.device("meta"):
            theirs = get_model(name, weights=None).state_dict()
        ours = {key: tuple(tensor.shape) for key, tensor in expected_state(f"torchvision:{name}").items()}
        assert ours == {key: tuple(theirs[key].shape) for key in theirs if not key.startswith(("fc.", "classifier."))}


def test_networks_of_torchvision_without_a_twin():
    with pytest.raises(InputError, match="torchvision:vit_b_16, whose tensors have other names"):
        build_backbone("torchvision:vit_b_16")


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"the nearest names are .*vit_small_patch14_dinov2"):
        timm_catalog.find_network("timm:vit_small_patch14_dinov3x")
    with pytest.raises(InputError, match="the tag is missing; write timm:resnet50"):
        timm_catalog.find_weights("resnet50")
    with pytest.raises(InputError, match="has no weights 'lvd1690m'; write lvd142m behind the dot"):
        timm_catalog.find_weights("vit_small_patch14_dinov2.lvd1690m")
    with pytest.raises(InputError, match="timm has no weights for 'resnetty'"):
        timm_catalog.find_weights("resnetty.x")


def test_arguments_of_an_architecture():
    assert parse_architecture("timm:vit_tiny_patch16_224(num_heads=12, qkv_bias=False, act_layer=gelu)").arguments == {
        "num_heads": 12,
        "qkv_bias": False,
        "act_layer": "gelu",
    }
    for arch in (
        "timm:resnet18(num_classes=3)",
        "timm:resnet18(global_pool=max)",
        "timm:vit_tiny_patch16_224(img_size=8)",
        "timm:resnet18(checkpoint_path=other.safetensors)",
        "timm:resnet18(pretrained=True)",
        "timm:resnet18(pretrained_strict=False)",
        "timm:resnet18(pretrained_cfg=other)",
        "timm:resnet18(cache_dir=other)",
    ):
        with pytest.raises(InputError, match="which the columns pool, size and source decide"):
            parse_architecture(arch)
    for arch in (
        "timm:resnet18.tv_in1k",
        "timm:ResNet",
        "resnet-1x1",
        "vit",
        "torchvision:resnet18(a=1)",
        "python:x.py",
    ):
        with pytest.raises(InputError, match="arch: found"):
            parse_architecture(arch)


@pytest.mark.parametrize(
    "argument",
    ["depth=abc", "embed_dim=0", "patch_size=0", "num_heads=1.5", "depth=1e9", "depth=99999999999", "depth=True"],
)
def test_sizes_of_a_network_are_whole_numbers(argument):
    with pytest.raises(InputError, match=f"arch: found '{argument}' in .*, expected a whole number from 1 to"):
        parse_architecture(f"timm:vit_tiny_patch16_224({argument})")


def test_the_tables_list_what_timm_has():
    """Names, norms, sizes and licences; the networks themselves are compared family by family."""
    no_vector = ("deepseek_vit", "qwen3_vit", "gemma4")  # encoders of language models
    assert set(timm_catalog._networks()) == {name for name in timm.list_models() if not name.startswith(no_vector)}
    assert set(timm_catalog._weights()) == set(timm.list_pretrained())
    known = timm_catalog.find_weights("vit_base_patch16_clip_quickgelu_224.openai")
    cfg = timm.get_pretrained_cfg("vit_base_patch16_clip_quickgelu_224.openai")
    assert known == (cfg.hf_hub_id, "", "clip", 224, cfg.license)
    assert math.isclose(timm_catalog.find_network("timm:vit_base_patch16_224").parameters, 86.6e6, rel_tol=1e-2)
