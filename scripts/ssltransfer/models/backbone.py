"""The backbone interface: pooled vectors and maps of a network, for every protocol and every architecture."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

ANY_SIZE = 0
"""Side of the images of a network that takes several sizes, as detection and surface normals need."""


class Backbone(nn.Module, ABC):
    """A pretrained network without its classifier.

    Attributes
    ----------
    width : int
        Elements of a pooled vector.
    strides : tuple of int
        Pixels of the input between neighbouring positions of each map, finest first; empty if there are no maps.
    channels : tuple of int
        Channels of each map.
    native_size : int, optional
        Side in pixels of the images that the network was built for; None if it takes any.
    """

    width: int
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    native_size: int | None = None

    @abstractmethod
    def pooled(self, images: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w) to one vector each, (n, width)."""

    @abstractmethod
    def maps(self, images: Tensor) -> list[Tensor]:
        """Map normalised images (n, 3, h, w) to maps (n, channels, h / stride, w / stride), finest first."""

    @abstractmethod
    def stages(self) -> list[list[nn.Parameter]]:
        """Parameters of the parts of the network in the order of the data, those of the stem first."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the network as a converted checkpoint holds them."""
        return self.state_dict()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Set all tensors of the network (see `tensors`)."""
        self.load_state_dict(tensors)

    def feature_map(self, images: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w) to the last map (n, c, h', w')."""
        return self.maps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Return `pooled`."""
        return self.pooled(images)
