"""The ImageNet networks of the LPIPS distances, and the addresses of their weights."""

from typing import NamedTuple

HOST = "https://download.pytorch.org/models"


class LpipsNetwork(NamedTuple):
    """The ImageNet network of an LPIPS distance; its weights are torchvision's.

    Attributes
    ----------
    net : str
        Name of the network in the package `lpips`.
    source, sha256 : str
        Address of the weights, and the first digits of their hash.
    """

    net: str
    source: str
    sha256: str


LPIPS_NETWORKS = {
    "alexnet": LpipsNetwork("alex", f"{HOST}/alexnet-owt-7be5be79.pth", "7be5be79"),
    "vgg": LpipsNetwork("vgg", f"{HOST}/vgg16-397923af.pth", "397923af"),
    "squeezenet": LpipsNetwork("squeeze", f"{HOST}/squeezenet1_1-b8a52dc0.pth", "b8a52dc0"),
}
