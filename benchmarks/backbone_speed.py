"""Throughput and equality of networks of timm here and in plain timm: `uv run python benchmarks/backbone_speed.py`.

For each family: images a second of feature extraction as jobs do it (reading and normalising uint8 images, the
network as `optimise_for_inference` makes it, float32 vectors) and of plain timm on the same, already normalised images
(`forward_head(forward_features(x), pre_logits=True)`), in turn; and the largest difference of a feature, as a share of
the largest feature. Weights are random, batch statistics too. Prints a table.
"""

import argparse
import os
import statistics
import sys
import time
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import numpy as np
import timm
import torch
from torch import nn

from ssltransfer.models.backbone_file import build_backbone
from ssltransfer.models.features import feature_batches
from ssltransfer.models.fusion import optimise_for_inference
from ssltransfer.models.input_norm import normalise

FAMILIES = {
    "ResNet-18": ("resnet18", 224),
    "ResNeXt-50": ("resnext50_32x4d", 224),
    "EfficientNet-B0": ("efficientnet_b0", 224),
    "MobileNetV3": ("mobilenetv3_small_100", 224),
    "ConvNeXt": ("convnext_atto", 224),
    "Swin": ("swin_tiny_patch4_window7_224", 224),
    "ViT-S/16 (DeiT-III)": ("deit3_small_patch16_224", 224),
    "DINOv2 with registers, S/14": ("vit_small_patch14_reg4_dinov2", 224),
    "DINOv3, S/16": ("vit_small_patch16_dinov3", 224),
    "MAE B/16": ("vit_base_patch16_224", 224),
    "CLIP B/32": ("vit_base_patch32_clip_quickgelu_224", 224),
    "SigLIP B/16": ("vit_base_patch16_siglip_224", 224),
    "Hiera": ("hiera_tiny_224", 224),
    "XCiT": ("xcit_nano_12_p16_224", 224),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    pictures = np.random.default_rng(0).integers(0, 256, (options.images, 224, 224, 3), np.uint8)
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, timm {timm.__version__}\n")
    print("| family | network | difference | plain timm, images a second | ours | ratio |\n" + "| --- " * 6 + "|")
    for family, (name, side) in FAMILIES.items():
        backbone = build_backbone(f"timm:{name}", size=side, seed=0).eval()
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
        plain, ours = backbone.network, optimise_for_inference(backbone)
        ready = normalise(torch.from_numpy(pictures), "imagenet").contiguous()
        times: dict[str, list[float]] = {"plain": [], "ours": []}
        with torch.inference_mode():
            for _ in range(options.rounds + 1):  # the first one warms up
                start = time.perf_counter()
                expected = plain.forward_head(plain.forward_features(ready), pre_logits=True)
                middle = time.perf_counter()
                batches = feature_batches(ours, pictures, "imagenet", torch.device("cpu"), options.images)
                found = torch.cat([features for _, features in batches])
                times["plain"].append(middle - start)
                times["ours"].append(time.perf_counter() - middle)
        rate = {key: options.images / statistics.median(values[1:]) for key, values in times.items()}
        ratio = statistics.median(a / b for a, b in zip(times["plain"][1:], times["ours"][1:], strict=True))
        difference = float((found - expected).abs().max() / expected.abs().max())
        print(
            f"| {family} | `{name}` | {difference:.1e} | {rate['plain']:.1f} | {rate['ours']:.1f} | {ratio:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
