"""ControlNet: a picture of the geometry steers what a Stable Diffusion paints on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.checks import InputError, in_range, one_of
from dream3d.priors.around import Around, settle, told
from dream3d.priors.base import Condition, Prior, resized
from dream3d.priors.hub import read_json, weights_variant
from dream3d.priors.opened import Part, dtype_of, open_networks
from dream3d.types import Cameras, Render

Hint = Literal["depth", "normal"]
HINTS = ("depth", "normal")


def depth_hint(render: Render) -> Float[Tensor, "B 3 H W"]:
    """Inverse depth of the rendering, the nearest point of each picture white, what is infinitely far black: MiDaS's
    pictures, on which depth ControlNets are trained, when nothing stands behind the object.

    Raises:
        InputError: the renderer draws no depth.
    """
    if render.depth is None:
        raise InputError("ControlNet: the renderer draws no depth. Take March, or hint: normal.")
    alpha, depth = (x.detach().permute(0, 3, 1, 2) for x in (render.alpha, render.depth))
    # A pixel that is hardly covered has no depth to speak of, and must not be the nearest.
    near = torch.where(alpha > 0.05, alpha / depth.clamp_min(1e-6), 0)
    return (alpha * near / near.amax((1, 2, 3), keepdim=True).clamp_min(1e-12)).clamp(0, 1).expand(-1, 3, -1, -1)


def normal_hint(render: Render, cameras: Cameras) -> Float[Tensor, "B 3 H W"]:
    """Normals as the camera sees them: red points to the picture's left, green up, blue at the viewer, each from 0 (the
    opposite) to 1; what is not covered is flat, towards the viewer. So ControlNet 1.1's README has it for rendered
    normals ("blue is front, red is left, green is top").

    Raises:
        InputError: the renderer draws no normals.
    """
    if render.normal is None:
        raise InputError("ControlNet: the renderer draws no normals. Take March, or hint: depth.")
    alpha = render.alpha.detach()
    inside = torch.einsum("bhwi,bij->bhwj", render.normal.detach(), cameras.c2w[:, :3, :3].to(render.normal))
    outside = (1 - alpha) * torch.tensor([0.0, 0.0, 1.0]).to(inside)
    colour = functional.normalize(inside + outside, dim=-1) * torch.tensor([-1.0, 1.0, 1.0]).to(inside)
    return (0.5 * colour + 0.5).permute(0, 3, 1, 2)


@final
class ControlNet(Around):
    """A Stable Diffusion steered by pictures of the current rendering's geometry (arXiv:2302.05543).

    A copy of the U-Net's encoder sees the hint and adds to the U-Net's skip connections. Hints are drawn from the
    rendering of each step; no gradient flows through them. Conditions are those of `of`; asked without a rendering,
    the hint is black, as for an empty scene.

    Args:
        of: the Stable Diffusion that is steered, or another prior around it.
        model: folder of a ControlNet, or an id on the hub such as "lllyasviel/sd-controlnet-depth".
        hint: what it was trained to see: "depth" (near is bright) or "normal".
        strength: factor of what it adds; 0 is `of` to the bit.
        revision: branch, tag or commit on the hub.
        variant: file variant, such as "fp16"; None takes plain files, or fp16 ones where only these are there.
    """

    title = "ControlNet"
    files = ("config.json", "README.md", "diffusion_pytorch_model*.safetensors", "*.safetensors.index*.json")

    def __init__(
        self,
        *,
        of: Prior,
        model: str,
        hint: Hint = "depth",
        strength: float = 1.0,
        revision: str | None = None,
        variant: str | None = None,
    ) -> None:
        one_of("ControlNet: hint", hint, HINTS)
        in_range("ControlNet: strength", strength, 0, 10)
        super().__init__(of=of, model=model, own=f"{hint} hint", revision=revision)
        self.hint = hint
        self.strength = strength
        self.variant = variant
        self.needs_normals = of.needs_normals or hint == "normal"
        self.side: Any = None

    def _told(self, conditions: dict[str, Condition], cameras: Cameras) -> dict[str, Condition]:
        black = torch.zeros(1, device=cameras.c2w.device, dtype=cameras.c2w.dtype)
        return told(conditions, self.own, black.expand(len(cameras), 3, self.image_size, self.image_size))

    def hinted(self, conditions: Mapping[str, Condition], render: Render, cameras: Cameras) -> dict[str, Condition]:
        hint = depth_hint(render) if self.hint == "depth" else normal_hint(render, cameras)
        return told(self.of.hinted(conditions, render, cameras), self.own, resized(hint, self.image_size))

    def _check(self, folder: Path) -> None:
        read_json(self.model, folder / "config.json")
        weights_variant(self.model, folder, "diffusion_pytorch_model", self.variant)

    def _open(self, folder: Path, network: Any) -> None:
        parts = {folder.name: Part(("ControlNetModel",))}
        side = open_networks(self.model, folder.parent, parts, self.variant, dtype_of(network))[folder.name]
        for key in ("cross_attention_dim", "block_out_channels", "in_channels"):
            ours, theirs = (str(getattr(n.config, key)).strip("()[]") for n in (side, network))
            if ours != theirs:
                raise InputError(
                    f"ControlNet '{self.model}' was made for another network ({key} {ours}, the prior's is {theirs}). "
                    "Take one that was trained with this Stable Diffusion."
                )
        self.side = side

    @contextmanager
    def _attached(self, network: Any, own: Tensor) -> Iterator[None]:
        if not self.strength:
            yield
            return
        handle = network.register_forward_pre_hook(
            lambda _, args, kwargs: self._steer(own, args, kwargs), with_kwargs=True
        )
        try:
            yield
        finally:
            handle.remove()

    def _steer(self, hint: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """The U-Net's arguments with what the side branch makes of them; another ControlNet's are added to."""
        z_t, timestep, *more = args
        text = more[0] if more else kwargs["encoder_hidden_states"]
        settle(self.side, z_t)
        pixels = z_t.shape[-1] * 2 ** (len(self.side.config.conditioning_embedding_out_channels) - 1)
        down, middle = self.side(
            z_t,
            timestep,
            encoder_hidden_states=text,
            controlnet_cond=resized(hint.to(z_t.dtype), pixels),
            conditioning_scale=self.strength,
            added_cond_kwargs=kwargs.get("added_cond_kwargs"),
            return_dict=False,
        )
        before = kwargs.get("down_block_additional_residuals")
        if before is not None:
            down = [one + other for one, other in zip(before, down, strict=True)]
            middle = middle + kwargs["mid_block_additional_residual"]
        residuals = {"down_block_additional_residuals": tuple(down), "mid_block_additional_residual": middle}
        return args, {**kwargs, **residuals}
