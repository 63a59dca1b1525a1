"""What priors share that are another prior with something beside its U-Net: a steered network, not another one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, cast, final

from jaxtyping import Float
from torch import Tensor, nn

from dream3d.checks import InputError
from dream3d.priors.base import Card, Condition, Prior, Schedule
from dream3d.priors.hub import licence_of, local_folder, obtain
from dream3d.prompts import Prompt
from dream3d.types import Cameras, Render


class Around(Prior, ABC):
    """Another prior whose U-Net is steered while it is asked through this one; asked itself, it answers as ever.

    A member says which tensor of a condition is its own, opens its files, and attaches itself to the network.

    Args:
        of: the prior that is steered; its network is a `UNet2DConditionModel`.
        model: folder or id on the hub of what steers.
        own: name of the tensor in conditions that only this prior knows.
        revision: branch, tag or commit on the hub.
    """

    title: ClassVar[str]
    """What people call it."""
    files: tuple[str, ...]
    """Patterns of the files in its folder."""

    def __init__(self, *, of: Prior, model: str, own: str, revision: str | None = None) -> None:
        super().__init__()
        inner: Prior = of
        while isinstance(inner, Around):
            if inner.own == own:
                raise InputError(f"{type(self).__name__}: of is steered by such a {own} already; leave one out.")
            inner = inner.of
        if not model:
            raise InputError(f"{type(self).__name__}: model is empty; expected a folder or a hub id.")
        self.of = of
        self.model = model
        self.own = own
        self.revision = revision
        self.views = of.views
        self.image_size = of.image_size
        self.needs_normals = of.needs_normals
        self._opened = False

    # What members write.

    @abstractmethod
    def _check(self, folder: Path) -> None:
        """Refuse a folder without the files, by reading a few kilobytes; raises MissingError."""

    @abstractmethod
    def _open(self, folder: Path, network: Any) -> None:
        """Read the weights, frozen, for this U-Net; raises InputError where they were made for another."""

    @abstractmethod
    def _told(self, conditions: dict[str, Condition], cameras: Cameras) -> dict[str, Condition]:
        """The steered prior's conditions with this prior's own tensor."""

    @abstractmethod
    def _attached(self, network: Any, own: Tensor) -> AbstractContextManager[None]:
        """Steers the network as long as the context lasts.

        Args:
            network: the U-Net.
            own: the rows of this prior's own tensor.
        """

    # What the outside sees.

    @property
    def schedule(self) -> Schedule:
        return self.of.schedule

    @final
    def card(self) -> Card:
        inner, licence = self.of.card(), licence_of(local_folder(self.model, self.revision))
        source = "a local folder" if Path(self.model).expanduser().is_dir() else self.model
        name = f"{inner.name} with {self.title} ({Path(self.model).name})"
        return Card(name, f"{inner.source}; {source}", f"{inner.licence}; {licence}")

    @final
    def load(self) -> None:
        if self._opened:
            return
        self.of.load()
        self.image_size = self.of.image_size
        network: Any = self.of.backbone()
        if type(network).__name__ != "UNet2DConditionModel":
            raise InputError(
                f"{type(self).__name__}: {self.of.card().name} has no U-Net to steer. Give a StableDiffusion as of."
            )
        if network.config.encoder_hid_dim_type == "ip_image_proj":
            raise InputError(
                f"{type(self).__name__}: {self.of.card().name} has a picture in its network. Take MVDream."
            )
        folder = obtain(self.model, revision=self.revision, files=self.files, check=self._check)
        self._open(folder, network)
        self.requires_grad_(False).eval()
        self._opened = True

    @final
    def backbone(self) -> nn.Module:
        """The steered prior's network, placed."""
        self.load()
        return cast(nn.Module, self.of.backbone())

    @final
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.of.encode(images)

    @final
    def decode(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return self.of.decode(z)

    @final
    def conditions(self, prompt: Prompt, cameras: Cameras) -> dict[str, Condition]:
        self.load()
        return self._told(self.of.conditions(prompt, cameras), cameras)

    def hinted(self, conditions: Mapping[str, Condition], render: Render, cameras: Cameras) -> dict[str, Condition]:
        return self.of.hinted(conditions, render, cameras)

    @final
    def denoise(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, "B"], condition: Condition
    ) -> Float[Tensor, "B C h w"]:
        own = condition.tensors[self.own]
        rest = Condition({name: tensor for name, tensor in condition.tensors.items() if name != self.own})
        with self._attached(self.backbone(), own):
            return self.of.denoise(z_t, t, rest)


def told(conditions: Mapping[str, Condition], name: str, tensor: Tensor) -> dict[str, Condition]:
    """All conditions with one more tensor, the same in each."""
    return {key: Condition({**condition.tensors, name: tensor}) for key, condition in conditions.items()}


def settle(module: nn.Module, like: Tensor) -> None:
    """Move a module to where `like` is, if it is elsewhere or of another precision."""
    now = next(module.parameters())
    if now.device != like.device or now.dtype != like.dtype:
        module.to(device=like.device, dtype=like.dtype)
