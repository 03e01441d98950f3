"""A backbone with a new linear layer, and the optimisers that finetune both."""

import copy
from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssltransfer.errors import InputError
from ssltransfer.models.backbone import Backbone
from ssltransfer.protocols.finetune.settings import Schedule, Trial


class Classifier(nn.Module):
    """A backbone with a new linear layer on its pooled vector.

    Parameters
    ----------
    backbone : Backbone
    classes : int
    seed : int
        Seed of the layer's initialisation (PyTorch's default one); the global generator is left as it was.
    """

    def __init__(self, backbone: Backbone, classes: int, seed: int) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(True)  # a user's code may have frozen it
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(backbone.width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w) to logits (n, classes)."""
        return self.head(self.backbone.pooled(images))

    def require_gradients(self, side: int, config_path: str) -> None:
        """Require that gradients reach the backbone's weights; InputError otherwise.

        Two images of `side` pixels are passed through a copy.
        """
        network = self.copied().train()
        network(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))).sum().backward()
        weights = list(network.backbone.parameters())
        if weights and all(weight.grad is None for weight in weights):
            raise InputError(
                f"{config_path}: no gradient reaches the {len(weights)} weights of the backbone; remove torch.no_grad, "
                "inference_mode or detach from its code"
            )

    def copied(self) -> "Classifier":
        """Return a copy with weights of its own."""
        return copy.deepcopy(self)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, or for several labels per image the mean binary cross-entropy over all that count.

    Parameters
    ----------
    logits : Tensor, shape (n, classes)
    labels : Tensor
        (n,) of int64, or (n, classes) of int8: 1, 0, or -1 for pairs that do not count.
    """
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels)
    counted = labels >= 0
    losses = functional.binary_cross_entropy_with_logits(logits, (labels > 0).to(logits.dtype), reduction="none")
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def make_optimiser(network: Classifier, schedule: Schedule, trial: Trial) -> torch.optim.Optimizer:
    """Return the optimiser of a trial.

    ``sgd`` is the paper's: Nesterov momentum, and a decay of base / learning rate on all parameters, batch norm and
    biases included. ``adamw`` decays the base value on matrices and kernels alone, and not on those that the network
    names in ``no_weight_decay()`` (class token, position embedding), as timm and MAE do. Gradients are clipped to the
    norm `clip`, unless that is 0.

    Parameters
    ----------
    network : Classifier
    schedule : Schedule
    trial : Trial
    """
    exempt = _exempt(network)
    groups = [
        {"params": chosen, "lr": trial.learning_rate * factor, "weight_decay": decay}
        for factor, parameters in _layers(network, trial.layer_decay)
        for chosen, decay in _decaying(parameters, exempt, schedule.optimiser, trial)
        if chosen
    ]
    optimiser: torch.optim.Optimizer
    if schedule.optimiser == "sgd":
        nesterov = schedule.momentum > 0
        optimiser = torch.optim.SGD(groups, momentum=schedule.momentum, nesterov=nesterov)
    else:
        optimiser = torch.optim.AdamW(groups)
    if schedule.clip:
        parameters = list(network.parameters())
        optimiser.register_step_pre_hook(
            lambda *_: (torch.nn.utils.clip_grad_norm_(parameters, schedule.clip), None)[1]
        )
    return optimiser


def _layers(network: Classifier, layer_decay: float) -> list[tuple[float, list[nn.Parameter]]]:
    """Parts of the network, the head last, each with the factor on its learning rate."""
    if layer_decay == 1:
        return [(1.0, list(network.parameters()))]
    parts = [*network.backbone.stages(), list(network.head.parameters())]
    inside = {id(parameter) for part in parts for parameter in part}
    # Such as those behind the last block, which belong to no part.
    parts[-1] += [parameter for parameter in network.parameters() if id(parameter) not in inside]
    return [(layer_decay ** (len(parts) - 1 - depth), part) for depth, part in enumerate(parts)]


def _exempt(network: nn.Module) -> set[int]:
    """Ids of the parameters that modules name, by patterns of timm's form, as those that do not decay."""
    return {
        id(parameter)
        for module in network.modules()
        if callable(named := getattr(module, "no_weight_decay", None))
        for pattern in named()
        for name, parameter in module.named_parameters()
        if fnmatchcase(name, pattern)
    }


def _decaying(
    parameters: Iterable[nn.Parameter], exempt: set[int], name: str, trial: Trial
) -> list[tuple[list[nn.Parameter], float]]:
    """Parameters with their weight decay."""
    every = list(parameters)
    if name == "sgd":
        return [(every, trial.weight_decay / trial.learning_rate)]
    decaying = [parameter for parameter in every if parameter.ndim > 1 and id(parameter) not in exempt]
    inside = {id(parameter) for parameter in decaying}
    return [(decaying, trial.weight_decay), ([parameter for parameter in every if id(parameter) not in inside], 0.0)]
