"""Faster R-CNN on a feature pyramid from torchvision's parts, with detectron2's defaults.

Where torchvision's own classes differ from detectron2 in arithmetic, a subclass here closes the gap; what remains is
listed in docs/detection.md.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import roi_align

from ssltransfer.models.backbone import Backbone
from ssltransfer.models.norm_table import mean_and_std
from ssltransfer.protocols.detection.pyramid import LEVELS, STRIDES, build_pyramid
from ssltransfer.protocols.detection.settings import DetectionSettings, Network

RATIOS = (0.5, 1.0, 2.0)


class Anchors(AnchorGenerator):
    """Anchors whose sides are not rounded, on grids of exactly `STRIDES` (torchvision divides image by map size)."""

    def generate_anchors(self, scales, aspect_ratios, dtype=torch.float32, device="cpu"):
        """Anchors around 0: (len(aspect_ratios), 4)."""
        ratios = torch.as_tensor(aspect_ratios, dtype=torch.float64)
        side = torch.as_tensor(scales, dtype=torch.float64)
        width = side / ratios.sqrt()
        height = ratios * width
        return (torch.stack([-width, -height, width, height], dim=1) / 2).to(dtype=dtype, device=device)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return the anchors of all levels for each image."""
        self.set_cell_anchors(torch.float32, feature_maps[0].device)
        anchors = self.grid_anchors([f.shape[-2:] for f in feature_maps], [(s, s) for s in STRIDES])
        return [torch.cat(anchors)] * len(image_list.image_sizes)


class ProposalHead(RPNHead):
    """The head of the proposal network; what it says of boxes stays float32 in mixed precision."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return objectness and box regression of each level."""
        objectness, regression = super().forward(x)
        return [t.float() for t in objectness], [t.float() for t in regression]


class Proposer(RegionProposalNetwork):
    """The proposal network with an L1 loss, normalised by the wanted number of samples."""

    def compute_loss(self, objectness, pred_bbox_deltas, labels, regression_targets):
        """Cross-entropy of the sampled anchors and L1 of the positive ones."""
        positive, negative = (torch.where(torch.cat(mask))[0] for mask in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        wanted = self.fg_bg_sampler.batch_size_per_image * len(labels)
        target = torch.cat(regression_targets)
        classify = functional.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        locate = functional.l1_loss(pred_bbox_deltas[positive], target[positive], reduction="sum")
        return classify / wanted, locate / wanted


class Pooler(nn.Module):
    """ROIAlign, aligned, with as many samples as the box is large, from the level that fits the box."""

    def __init__(self, canonical: int, size: int = 7) -> None:
        super().__init__()
        self.canonical = canonical
        self.output_size = (size, size)

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], image_shapes: list) -> Tensor:
        """Map boxes of all images to (boxes, channels, 7, 7)."""
        number = torch.cat([torch.full_like(b[:, :1], i) for i, b in enumerate(boxes)])
        rois = torch.cat([number, torch.cat(boxes)], dim=1)
        side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
        level = torch.floor(4 + torch.log2(side / self.canonical + 1e-8)).clamp(2, 5).long() - 2
        pooled = maps["p2"].new_zeros(len(rois), maps["p2"].shape[1], *self.output_size)
        for i, name in enumerate(LEVELS):
            rows = torch.where(level == i)[0]
            found = roi_align(maps[name], rois[rows], self.output_size, 1 / STRIDES[i], 0, True)
            pooled.index_put_((rows,), found.to(pooled.dtype))
        return pooled


class Heads(RoIHeads):
    """The box head with an L1 loss."""

    def forward(self, features, proposals, image_shapes, targets=None):
        """Return detections and, in training, losses."""
        if self.training:
            proposals, _, labels, regression = self.select_training_samples(proposals, targets)
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        logits, deltas = logits.float(), deltas.float()
        if not self.training:
            found = self.postprocess_detections(logits, deltas, proposals, image_shapes)
            return [{"boxes": b, "scores": s, "labels": k} for b, s, k in zip(*found, strict=True)], {}
        labels, regression = torch.cat(labels), torch.cat(regression)
        rows = torch.where(labels > 0)[0]
        locate = functional.l1_loss(
            deltas.reshape(len(deltas), -1, 4)[rows, labels[rows]], regression[rows], reduction="sum"
        )
        return [], {
            "loss_cls": functional.cross_entropy(logits, labels),
            "loss_box_reg": locate / max(1, len(labels)),
        }


class Detector(nn.Module):
    """Faster R-CNN.

    Parameters
    ----------
    backbone : Backbone
        Becomes part of the detector.
    classes : int
    norm : str
        See `norm_table.mean_and_std`.
    settings : DetectionSettings

    Attributes
    ----------
    deviation : str
        How the frozen part differs from that of a residual network; empty if it does not.
    """

    def __init__(self, backbone: Backbone, classes: int, norm: str, settings: DetectionSettings) -> None:
        super().__init__()
        net: Network = settings.network
        self.pyramid = build_pyramid(backbone, net.channels, settings.frozen)
        self.deviation = self.pyramid.deviation
        before_train, before_test, after = net.proposals
        self.rpn = Proposer(
            Anchors(tuple((side,) for side in net.anchors), (RATIOS,) * len(net.anchors)),
            ProposalHead(net.channels, len(RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=net.samples[0],
            positive_fraction=0.5,
            pre_nms_top_n={"training": before_train, "testing": before_test},
            post_nms_top_n={"training": after, "testing": after},
            nms_thresh=0.7,
        )
        self.rpn.min_size = torch.finfo(torch.float32).tiny  # as in detectron2, only empty proposals are dropped
        self.heads = Heads(
            Pooler(net.canonical),
            TwoMLPHead(net.channels * 49, net.hidden),
            FastRCNNPredictor(net.hidden, classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=net.samples[1],
            positive_fraction=0.25,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=0.05,
            nms_thresh=0.5,
            detections_per_img=100,
        )
        for layer, std in ((self.heads.box_predictor.cls_score, 0.01), (self.heads.box_predictor.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        for layer in (self.heads.box_head.fc6, self.heads.box_head.fc7):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        for name, values in zip(("mean", "std"), mean_and_std(norm), strict=True):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1), persistent=False)

    def losses(self, batch: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        """Losses of a batch (see `inputs.TrainingImages`); their sum is minimised."""
        images = self._batch(batch["image"])
        # torchvision counts the background as class 0.
        targets = [{"boxes": b, "labels": k + 1} for b, k in zip(batch["boxes"], batch["labels"], strict=True)]
        maps = self.pyramid(images.tensors)
        proposals, losses = self.rpn(images, maps, targets)
        return losses | self.heads(maps, proposals, images.image_sizes, targets)[1]

    def detect(self, images: list[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Detect objects in images uint8 (3, h, w): boxes (k, 4), scores (k,) falling, and labels (k,) of each."""
        batch = self._batch(images)
        maps = self.pyramid(batch.tensors)
        proposals, _ = self.rpn(batch, maps)
        found, _ = self.heads(maps, proposals, batch.image_sizes)
        return [(f["boxes"], f["scores"], f["labels"] - 1) for f in found]

    def _batch(self, images: list[Tensor]) -> ImageList:
        """Normalise images and pad them with zeros to a common size that 32 divides."""
        height, width = (-(-max(image.shape[i] for image in images) // 32) * 32 for i in (1, 2))
        batch = self.mean.new_zeros(len(images), 3, height, width)
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = (image - self.mean) / self.std
        return ImageList(batch, [tuple(image.shape[1:]) for image in images])


def build(backbone: Backbone, arch: str, classes: int, norm: str, settings: DetectionSettings) -> Detector:
    """Build a detector whose new layers are drawn from the settings' seed; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Detector(backbone, classes, norm, settings)
