"""Faster R-CNN of detectron2, which the paper used; its configuration is built from the suite's settings block.

Only this module imports detectron2, which is not on the package index (envs/detectron2.yaml has it).
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from ssltransfer.checkpoints.detectron2 import save_detectron2, to_detectron2
from ssltransfer.errors import InputError
from ssltransfer.models.norm_table import mean_and_std
from ssltransfer.models.resnet import ResNet, parse_resnet
from ssltransfer.protocols.detection.settings import FROZEN, DetectionSettings

try:
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import CfgNode, get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import build_model
    from detectron2.modeling.backbone import BACKBONE_REGISTRY, FPN
    from detectron2.modeling.backbone import ResNet as Detectron2ResNet
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage
except ImportError as error:
    raise InputError(
        f"backend detectron2 cannot be used ({error}); run with --software-deployment-method conda, which installs it, "
        "or choose a settings block with backend: torchvision"
    ) from None

STAGES = ("res2", "res3", "res4", "res5")


def make_config(arch: str, classes: int, norm: str, settings: DetectionSettings) -> CfgNode:
    """Build detectron2's configuration: its defaults for Faster R-CNN with a feature pyramid, and the settings.

    Parameters
    ----------
    arch : str
        See `resnet.build_resnet`.
    classes : int
    norm : str
        See `norm_table.mean_and_std`.
    settings : DetectionSettings
    """
    net = settings.network
    mean, std = mean_and_std(norm)
    values = {
        "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
        "MODEL.DEVICE": "cpu",  # moved by the trainer
        "MODEL.BACKBONE.NAME": _pyramid.__name__,
        "MODEL.BACKBONE.FREEZE_AT": FROZEN[settings.frozen],
        "MODEL.RESNETS.OUT_FEATURES": list(STAGES),
        "MODEL.RESNETS.NORM": "FrozenBN",
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.FPN.IN_FEATURES": list(STAGES),
        "MODEL.FPN.OUT_CHANNELS": net.channels,
        "MODEL.ANCHOR_GENERATOR.SIZES": [[side] for side in net.anchors],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
        "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN": net.proposals[0],
        "MODEL.RPN.PRE_NMS_TOPK_TEST": net.proposals[1],
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": net.proposals[2],
        "MODEL.RPN.POST_NMS_TOPK_TEST": net.proposals[2],
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE": net.samples[0],
        "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
        "MODEL.ROI_HEADS.NUM_CLASSES": classes,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": net.samples[1],
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
        "MODEL.ROI_BOX_HEAD.FC_DIM": net.hidden,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
        "MODEL.PIXEL_MEAN": [255 * value for value in mean],
        "MODEL.PIXEL_STD": [255 * value for value in std],
        "INPUT.FORMAT": "RGB",
    }
    config = get_cfg()
    config.merge_from_list([item for pair in values.items() for item in pair])
    config.ARCH = arch
    return config


def _pyramid(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a residual network of any number of blocks and any width, and the feature pyramid on it."""
    blocks, width, padding = parse_resnet(cfg.ARCH)
    if padding:
        raise InputError(f"backend detectron2 has no {cfg.ARCH}; choose a settings block with backend: torchvision")
    norm = cfg.MODEL.RESNETS.NORM
    stages, channels = [], width
    for i, count in enumerate(blocks):
        out = 4 * width * 2**i
        stages.append(
            Detectron2ResNet.make_stage(
                BottleneckBlock,
                count,
                stride_per_block=[1 if i == 0 else 2] + [1] * (count - 1),
                in_channels=channels,
                out_channels=out,
                bottleneck_channels=out // 4,
                stride_in_1x1=cfg.MODEL.RESNETS.STRIDE_IN_1X1,
                norm=norm,
            )
        )
        channels = out
    network = Detectron2ResNet(
        BasicStem(input_shape.channels, width, norm), stages, out_features=cfg.MODEL.RESNETS.OUT_FEATURES
    )
    network.freeze(cfg.MODEL.BACKBONE.FREEZE_AT)
    return FPN(network, cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.FPN.OUT_CHANNELS, top_block=LastLevelMaxPool())


BACKBONE_REGISTRY.register(_pyramid)


class Detector(nn.Module):
    """Adapts detectron2's network to the interface of `torchvision_backend.Detector`."""

    def __init__(self, config: CfgNode, canonical: float) -> None:
        super().__init__()
        self.network = build_model(config)
        self.network.roi_heads.box_pooler.canonical_box_size = canonical

    def losses(self, batch: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        """Losses of a batch (see `inputs.TrainingImages`); their sum is minimised."""
        inputs = []
        for image, boxes, labels in zip(batch["image"], batch["boxes"], batch["labels"], strict=True):
            objects = Instances(tuple(image.shape[1:]), gt_boxes=Boxes(boxes), gt_classes=labels)
            inputs.append({"image": image, "instances": objects})
        try:
            with EventStorage():
                return self.network(inputs)
        except FloatingPointError:
            raise InputError("detectron2 met proposals that are not finite; write a lower learning_rate") from None

    def detect(self, images: list[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Detect objects in images uint8 (3, h, w): boxes (k, 4), scores (k,) falling, and labels (k,) of each."""
        found = [result["instances"] for result in self.network([{"image": image} for image in images])]
        return [(f.pred_boxes.tensor, f.scores, f.pred_classes) for f in found]


def load_weights(network: nn.Module, backbone: ResNet, folder: Path) -> None:
    """Fill the residual network from the exported checkpoint, and require that every tensor arrived.

    Raises
    ------
    InputError
        If a tensor is missing, left over or different.
    """
    path = folder / "backbone.pkl"
    save_detectron2(backbone.state_dict(), path)
    DetectionCheckpointer(network).load(str(path))
    expected, found = to_detectron2(backbone.state_dict()), network.backbone.bottom_up.state_dict()
    if wrong := [
        name
        for name in sorted(expected.keys() | found.keys())
        if name not in found or name not in expected or not torch.equal(expected[name], found[name].cpu())
    ]:
        raise InputError(f"detectron2 did not load {len(wrong)} tensors of the backbone, first {wrong[0]}")


def build(backbone: ResNet, arch: str, classes: int, norm: str, settings: DetectionSettings) -> Detector:
    """Build a detector whose new layers are drawn from the settings' seed; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        detector = Detector(make_config(arch, classes, norm, settings), settings.network.canonical)
    with tempfile.TemporaryDirectory() as folder:
        load_weights(detector.network, backbone, Path(folder))
    return detector
