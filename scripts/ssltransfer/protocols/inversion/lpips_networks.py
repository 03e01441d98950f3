"""The networks under the LPIPS distances, and where their weights are."""

from typing import NamedTuple

HOST = "https://download.pytorch.org/models"


class Trunk(NamedTuple):
    """The ImageNet network under an LPIPS distance; its weights are torchvision's.

    Attributes
    ----------
    net : str
        Its name in the package `lpips`.
    source, sha256 : str
        Address of the weights, and the first digits of their hash.
    """

    net: str
    source: str
    sha256: str


TRUNKS = {
    "alexnet": Trunk("alex", f"{HOST}/alexnet-owt-7be5be79.pth", "7be5be79"),
    "vgg": Trunk("vgg", f"{HOST}/vgg16-397923af.pth", "397923af"),
    "squeezenet": Trunk("squeeze", f"{HOST}/squeezenet1_1-b8a52dc0.pth", "b8a52dc0"),
}
