"""Registry of metrics (names, units, directions) and of the kinds of protocols that report them."""

import math
from dataclasses import dataclass

#: Unit -> (smallest, largest possible value).
UNITS = {
    "percent": (0.0, 100.0),
    "fraction": (0.0, 1.0),
    "distance": (0.0, math.inf),
    "degrees": (0.0, 180.0),
    "levels^2": (0.0, 255.0**2),
    "decibels": (0.0, math.inf),
    "similarity": (-1.0, 1.0),
    "number": (0.0, math.inf),
    "score": (-math.inf, math.inf),
}


@dataclass(frozen=True)
class Metric:
    """How the values of a metric are named, printed, compared and transformed.

    Attributes
    ----------
    label : str
        Column heading.
    unit : str
        A key of `UNITS`.
    better : int
        1 where higher is better, -1 where lower is better, 0 where neither is.
    logit : bool
        Whether correlations use the logit of the value (v2 section A.7) or the value itself.
    decimals : int
        Digits printed in tables, as in the paper.
    secondary : bool
        Whether it stands beside the metric of a dataset only, so that no panel, average or rank counts it.
    """

    label: str
    unit: str = "percent"
    better: int = 1
    logit: bool = True
    decimals: int = 2
    secondary: bool = False

    @property
    def scale(self) -> float:
        """Divisor that turns a value into a fraction, before the logit."""
        return 100.0 if self.unit == "percent" else 1.0


METRICS = {
    "top1": Metric("Top-1 accuracy"),
    "top5": Metric("Top-5 accuracy", secondary=True),
    "mean-per-class": Metric("Mean per-class accuracy"),
    "map11": Metric("11-point mAP"),
    "accuracy": Metric("Accuracy"),
    "ap": Metric("AP"),
    "ap50": Metric("AP50"),
    "ap75": Metric("AP75"),
    "mean-angle": Metric("Mean", "degrees", -1, logit=False),
    "median-angle": Metric("Median", "degrees", -1, logit=False),
    "within-11.25": Metric("< 11.25°"),
    "within-22.5": Metric("< 22.5°"),
    "within-30": Metric("< 30°"),
    "mean-iou": Metric("Mean IoU", "fraction", decimals=4),
    "pixel-accuracy": Metric("Accuracy"),
    "ece": Metric("ECE", better=-1),
    "lpips-alexnet": Metric("LPIPS AlexNet", "distance", -1),
    "lpips-vgg": Metric("LPIPS VGG", "distance", -1),
    "lpips-squeezenet": Metric("LPIPS SqueezeNet", "distance", -1),
    "mse-red": Metric("MSE red", "levels^2", -1, logit=False, decimals=0),
    "mse-green": Metric("MSE green", "levels^2", -1, logit=False, decimals=0),
    "mse-blue": Metric("MSE blue", "levels^2", -1, logit=False, decimals=0),
    "psnr": Metric("PSNR", "decibels", logit=False),
    "ssim": Metric("SSIM", "similarity", logit=False),
    "attentive-diffusion": Metric("Attentive diffusion", better=0),
    "h-score": Metric("H-score above chance", "score", logit=False),
    "h-score-shrunk": Metric("Shrunk H-score", "score", logit=False),
    "log-me": Metric("LogME", "score", logit=False, decimals=3),
    "knn-loo": Metric("k-NN, leave-one-out"),
    "ncm": Metric("Class means, leave-one-out"),
    "cdnv": Metric("CDNV", "number", -1, logit=False, decimals=3),
    "cdnv-median": Metric("CDNV, median", "number", -1, logit=False, decimals=3),
    "gbc": Metric("GBC", "score", logit=False),
    "trans-rate": Metric("TransRate", "score", logit=False),
    "rank-me": Metric("RankMe", "number", logit=False, decimals=1),
    "effective-rank": Metric("Effective rank", "number", logit=False, decimals=1),
    "stable-rank": Metric("Stable rank", "number", logit=False),
    "alpha-req": Metric("alpha-ReQ", "score", better=0, logit=False),
    "two-nn": Metric("TwoNN dimension", "number", -1, logit=False, decimals=1),
    "mle-dimension": Metric("MLE dimension", "number", -1, logit=False, decimals=1),
    "uniformity": Metric("Uniformity", "score", -1, logit=False),
}


@dataclass(frozen=True)
class Kind:
    """A kind of protocol, and how the paper summarises its scores.

    Attributes
    ----------
    label, short : str
        Heading of its tables and panels, and its abbreviation.
    headline : str or None
        The metric that represents the kind in Fig. 1 (v2); None where every dataset has its own metric.
    performance : bool
        True for transfer tasks (panels of Fig. 1), False for properties of the features.
    units : str
        What its intervals are over: the units that another sample would have others of.
    estimate : bool
        Whether its numbers predict transfer and do not measure it: they stand in tables of their own alone.
    """

    label: str
    short: str
    headline: str | None = None
    performance: bool = True
    units: str = "test images"
    estimate: bool = False

    @property
    def own_metric(self) -> bool:
        """Whether labels name the metric, because the dataset does not tell it."""
        return self.headline is not None or not self.performance


ONE_TRAINING = "test images, for one training run"
"""Units of the protocols that train a network: another seed would move their scores, which no interval holds."""

KINDS = {
    "linear": Kind("Many-shot linear", "Linear"),
    "knn": Kind("k-nearest neighbours", "k-NN"),
    "finetune": Kind("Many-shot finetuning", "Finetune", units=ONE_TRAINING),
    "fewshot": Kind("Few-shot", "Few-shot", units="episodes"),
    "detection-frozen": Kind("Detection (frozen)", "Det. frozen", "ap50", units=ONE_TRAINING),
    "detection-finetune": Kind("Detection (finetune)", "Det. finetune", "ap50", units=ONE_TRAINING),
    "normals": Kind("Surface normals", "Normals", "within-11.25", units=ONE_TRAINING),
    "segmentation": Kind("Segmentation", "Segm.", "mean-iou", units=ONE_TRAINING),
    "calibration": Kind("Calibration", "Calibration", performance=False),
    "label-efficiency": Kind("Label efficiency", "Labels", performance=False, units="draws of the labelled images"),
    "estimators": Kind("Transferability estimators", "Estimators", performance=False, units="", estimate=True),
    "inversion": Kind("Feature inversion", "Inversion", performance=False, units="images"),
    "attention": Kind("Occlusion attention", "Attention", performance=False, units="images"),
}

SOURCE_KINDS = ("linear", "knn")
"""Kinds of scores that source accuracy ``measured:DATASET`` takes, the first that a dataset has."""


def measured_cell(text: str) -> tuple[str, str]:
    """Protocol (empty where none is named) and dataset of ``measured:DATASET`` or ``measured:PROTOCOL/DATASET``."""
    protocol, _, dataset = text.removeprefix("measured:").rpartition("/")
    return protocol, dataset
