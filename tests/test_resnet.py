import pytest
import torch

from ssltransfer.models.input_norm import normalise
from ssltransfer.models.resnet import build_resnet


def test_resnet50_is_torchvisions():
    from torchvision.models import resnet50

    torch.manual_seed(0)
    reference = resnet50(weights=None)
    reference.fc = torch.nn.Identity()
    for module in reference.modules():  # running statistics as after training, not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    backbone = build_resnet("resnet50")
    assert {k: v.shape for k, v in backbone.state_dict().items()} == {
        k: v.shape for k, v in reference.state_dict().items()
    }
    backbone.load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(backbone.eval()(x), reference.eval()(x))


@pytest.mark.parametrize("arch", ["resnet-1x1x1x1-w4", "resnet-1x2x1x1-w8"])
def test_feature_size(arch):
    backbone = build_resnet(arch, seed=0).eval()
    width = int(arch.rpartition("w")[2])
    assert backbone.width == 32 * width
    x = torch.randn(2, 3, 64, 64)
    assert backbone.feature_map(x).shape == (2, 32 * width, 2, 2)
    assert backbone(x).shape == (2, 32 * width)


def test_seed_fixes_the_weights_and_leaves_the_generator():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, two = (build_resnet("resnet-1x1x1x1-w4", seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("arch", ["resnet18", "resnet-1x1x1-w4", "resnet-1x1x1x1"])
def test_unknown_arch(arch):
    with pytest.raises(ValueError, match="unknown arch"):
        build_resnet(arch)


def test_normalise_equals_torchvision():
    from torchvision.transforms.functional import normalize

    images = torch.randint(0, 256, (3, 5, 4, 3), dtype=torch.uint8)
    scaled = images.permute(0, 3, 1, 2).float() / 255
    expected = normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(normalise(images, "imagenet"), expected)
    torch.testing.assert_close(normalise(images, "none"), scaled)
    assert normalise(images, "none").is_contiguous(memory_format=torch.channels_last)
