"""Pretraining methods: a backbone, the head it trains with, and the loss of a batch of views.

A method is built from the backbone and its own settings (block `head` of a recipe). Calling it with the
normalised views (views * n, 3, h, w), all first views before all second ones, and the labels (n,) returns the
loss. The losses are functions of their own, so that tests can compare them with their papers' formulas.

Widths are settings because the papers' heads (2,048 to 8,192 wide) are made for ImageNet. All views of a
batch share one pass, hence one set of batch-norm statistics, as in SimCLR.
"""

import copy
import math
from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssltransfer.models.backbone import Backbone

Settings = ParamSpec("Settings")
Loss = TypeVar("Loss")


def in_float32(
    loss: Callable[Concatenate[Tensor, Tensor, Settings], Loss],
) -> Callable[Concatenate[Tensor, Tensor, Settings], Loss]:
    """Compute a loss of two embeddings in float32, whatever precision the network computes in."""

    @wraps(loss)
    def computed(a: Tensor, b: Tensor, /, *settings: Settings.args, **named: Settings.kwargs) -> Loss:
        with torch.autocast(a.device.type, enabled=False):
            return loss(a.float(), b.float(), *settings, **named)

    return computed


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers of the given widths, batch normalisation and ReLU after all but the last."""
    layers = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(*widths[-2:]))


class Method(nn.Module):
    """Interface between a method and the training loop."""

    views = 2

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def after_step(self, progress: float) -> None:
        """Follow an optimiser step; `progress` is the finished fraction of the training."""


class Supervised(Method):
    """Cross-entropy of a linear classifier on one augmented view."""

    views = 1

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__(backbone)
        self.classifier = nn.Linear(backbone.width, classes)

    def forward(self, views: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return functional.cross_entropy(self.classifier(self.backbone(views)), labels)


class SimCLR(Method):
    """Contrast of two views of an image against all other images (Chen et al., arXiv:2002.05709)."""

    def __init__(self, backbone: Backbone, hidden: int, output: int, temperature: float) -> None:
        super().__init__(backbone)
        self.projector = mlp(backbone.width, hidden, output)
        self.temperature = temperature

    def forward(self, views: Tensor, labels: Tensor) -> Tensor:
        """Return `nt_xent` of the embeddings."""
        return nt_xent(*self.projector(self.backbone(views)).chunk(2), self.temperature)


@in_float32
def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy of embeddings (n, d) of two views (SimCLR, equation 1)."""
    z = functional.normalize(torch.cat([a, b]))
    similarity = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(a))
    return functional.cross_entropy(similarity, partner)


class BYOL(Method):
    """Prediction of a moving average's embedding of the other view (Grill et al., arXiv:2006.07733)."""

    def __init__(self, backbone: Backbone, hidden: int, output: int, momentum: float) -> None:
        super().__init__(backbone)
        self.projector = mlp(backbone.width, hidden, output)
        self.predictor = mlp(output, hidden, output)
        self.target = copy.deepcopy(nn.Sequential(backbone, self.projector)).requires_grad_(False)
        self.momentum = momentum

    def forward(self, views: Tensor, labels: Tensor) -> Tensor:
        """Return the squared distance of the normalised vectors (equation 2), a mean over both directions."""
        prediction = self.predictor(self.projector(self.backbone(views)))
        with torch.no_grad():
            target = self.target(views).roll(len(labels), dims=0)
        return 2 - 2 * functional.cosine_similarity(prediction.float(), target.float()).mean()

    def after_step(self, progress: float) -> None:
        """Move the target towards the online network (section 3.2)."""
        update_average(self.target, nn.Sequential(self.backbone, self.projector), self.momentum, progress)


@torch.no_grad()
def update_average(average: nn.Module, online: nn.Module, momentum: float, progress: float) -> None:
    """Move the parameters of a moving average towards the trained ones; the momentum rises to 1 by half a cosine."""
    momentum = 1 - (1 - momentum) * (math.cos(math.pi * progress) + 1) / 2
    for target, source in zip(average.parameters(), online.parameters(), strict=True):
        target.lerp_(source, 1 - momentum)


class BarlowTwins(Method):
    """Cross-correlation of the views' embeddings made the identity (Zbontar et al., arXiv:2103.03230)."""

    def __init__(self, backbone: Backbone, hidden: int, output: int, redundancy: float) -> None:
        super().__init__(backbone)
        self.projector = mlp(backbone.width, hidden, output)
        self.redundancy = redundancy

    def forward(self, views: Tensor, labels: Tensor) -> Tensor:
        """Return `barlow_twins` of the embeddings."""
        return barlow_twins(*self.projector(self.backbone(views)).chunk(2), self.redundancy)


@in_float32
def barlow_twins(a: Tensor, b: Tensor, redundancy: float) -> Tensor:
    """Loss of embeddings (n, d) of two views (Barlow Twins, equations 1 and 2)."""
    a, b = (functional.batch_norm(z, None, None, training=True) for z in (a, b))
    correlation = a.T @ b / len(a)
    return (1 - correlation.diagonal()).square().sum() + redundancy * off_diagonal(correlation).square().sum()


def off_diagonal(matrix: Tensor) -> Tensor:
    """Elements of a square matrix beside its diagonal, as a vector."""
    size = len(matrix)
    return matrix.flatten()[:-1].view(size - 1, size + 1)[:, 1:].flatten()


class VICReg(Method):
    """Invariance, variance and covariance terms on two views (Bardes et al., arXiv:2105.04906)."""

    def __init__(
        self,
        backbone: Backbone,
        hidden: int,
        output: int,
        invariance: float,
        variance: float,
        covariance: float,
    ) -> None:
        super().__init__(backbone)
        self.projector = mlp(backbone.width, hidden, output)
        self.weights = (invariance, variance, covariance)

    def forward(self, views: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted sum of `vicreg_terms`."""
        terms = vicreg_terms(*self.projector(self.backbone(views)).chunk(2))
        return sum(weight * term for weight, term in zip(self.weights, terms, strict=True))


@in_float32
def vicreg_terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Invariance, variance and covariance of embeddings (n, d) of two views (VICReg, equations 1 to 5).

    As in the authors' code, invariance is a mean over the dimensions too, and variance a mean over the views.
    """
    invariance = functional.mse_loss(a, b)
    variance = sum(functional.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2 for z in (a, b))
    covariance = sum(off_diagonal(z.T.cov()).square().sum() / z.shape[1] for z in (a, b))
    return invariance, variance, covariance


class SwAV(Method):
    """Prediction of the other view's balanced cluster assignment (Caron et al., arXiv:2006.09882)."""

    def __init__(
        self,
        backbone: Backbone,
        hidden: int,
        output: int,
        prototypes: int,
        temperature: float,
        epsilon: float,
    ) -> None:
        super().__init__(backbone)
        self.projector = mlp(backbone.width, hidden, output)
        self.prototypes = nn.Linear(output, prototypes, bias=False)
        self.temperature = temperature
        self.epsilon = epsilon

    def forward(self, views: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with the assignments that `sinkhorn` gives the other view."""
        scores = prototype_scores(self.backbone, self.projector, self.prototypes, views)
        targets = torch.cat([sinkhorn(part.detach(), self.epsilon) for part in scores.chunk(2)])
        return functional.cross_entropy(scores / self.temperature, targets.roll(len(labels), dims=0))


def prototype_scores(backbone: nn.Module, projector: nn.Module, prototypes: nn.Linear, views: Tensor) -> Tensor:
    """Cosines (n, k) of the embeddings of n views and the k prototypes."""
    embeddings = functional.normalize(projector(backbone(views)).float())
    with torch.autocast(embeddings.device.type, enabled=False):
        return embeddings @ functional.normalize(prototypes.weight).T


def sinkhorn(scores: Tensor, epsilon: float, iterations: int = 3) -> Tensor:
    """Assign n samples to k clusters of equal weight: (n, k) scores to probabilities (SwAV, section 3.1)."""
    assignment = torch.softmax(scores.flatten() / epsilon, dim=0).view_as(scores)
    for _ in range(iterations):
        assignment = functional.normalize(assignment, p=1, dim=0) / assignment.shape[1]
        assignment = functional.normalize(assignment, p=1, dim=1) / assignment.shape[0]
    return assignment * len(assignment)


class DINO(Method):
    """Self-distillation: a student predicts its moving average's assignment of the other view (arXiv:2104.14294).

    Both have a head that ends in one score per prototype, the cosine to its weights. The teacher's scores are balanced
    by `sinkhorn` instead of a moving centre, as in DINOv2 (arXiv:2304.07193), and the head has batch normalisation,
    which DINO leaves to choice; both keep short trainings on small batches from collapsing.
    """

    def __init__(
        self,
        backbone: Backbone,
        hidden: int,
        output: int,
        prototypes: int,
        temperature: float,
        epsilon: float,
        momentum: float,
    ) -> None:
        super().__init__(backbone)
        self.projector = mlp(backbone.width, hidden, output)
        self.prototypes = nn.Linear(output, prototypes, bias=False)
        self.teacher = copy.deepcopy(self.student()).requires_grad_(False)
        self.temperature = temperature
        self.epsilon = epsilon
        self.momentum = momentum

    def student(self) -> nn.ModuleList:
        """Return the trained network: backbone, projector and prototypes."""
        return nn.ModuleList([self.backbone, self.projector, self.prototypes])

    def forward(self, views: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with the teacher's assignments of the other view (equation 3)."""
        scores = prototype_scores(*self.student(), views)
        with torch.no_grad():
            taught = prototype_scores(*self.teacher, views)
            targets = torch.cat([sinkhorn(part, self.epsilon) for part in taught.chunk(2)])
        return functional.cross_entropy(scores / self.temperature, targets.roll(len(labels), dims=0))

    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student."""
        update_average(self.teacher, self.student(), self.momentum, progress)


METHODS = {
    "supervised": Supervised,
    "simclr": SimCLR,
    "byol": BYOL,
    "barlow-twins": BarlowTwins,
    "vicreg": VICReg,
    "swav": SwAV,
    "dino": DINO,
}
"""Names of the methods in recipes; `none` (random initialisation) trains nothing."""
