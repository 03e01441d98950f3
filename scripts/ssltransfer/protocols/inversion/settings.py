"""The settings block of an inversion protocol: the keys that the inversion and its evaluation read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """The deep image prior.

    Attributes
    ----------
    channels, kernels : tuple of int
        Channels and (odd) kernel size of each scale, the finest first.
    skip : int
        Channels of the skip branches.
    inputs : int
        Channels of the noise.
    noise : float
        The noise is uniform between 0 and this.
    output : {'sigmoid', 'linear'}
        Pixels are bounded by a sigmoid, or taken as normalised pixels and clipped at the end.
    """

    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    skip: int
    inputs: int
    noise: float
    output: str


@dataclass(frozen=True)
class InversionSettings:
    """Settings of the inversion.

    Attributes
    ----------
    canvas : int
        Side of the network's output, whose top left corner is the image: a multiple of 2 ** scales, larger than that,
        and at least the side of the image.
    steps : int
        Iterations of Adam.
    learning_rate : float
    network : Network
    precision : str
        See `precision.computing_in`.
    seed : int
        Seed of weights and noise.
    """

    canvas: int
    steps: int
    learning_rate: float
    network: Network
    precision: str
    seed: int


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the comparison of reconstructions and originals; `lpips` names the networks of the distances."""

    transform: str
    steps: int
    network: Network
    lpips: tuple[str, ...]
