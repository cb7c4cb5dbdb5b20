"""A second judge of shapes, that sees by another method than the checker: a small convolutional network.

The checker (`detect`) thresholds colours and matches templates; a model may learn to please its thresholds. This
network never saw them. It finds objects as points (CenterNet, Zhou et al. 2019) and says whether the picture is as
clean as a drawn one; it learned both from renders of scenes, plain and spoiled (`python -m benchmarks.shapes_judge`).
It decides nothing: where both judges part, the picture is disputed, and a person should look.

Legend: B batch, N pictures, H and W height and width in pixels, h and w rows and columns of cells.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.core.files import load_tensors
from fromnoise.data.scenes import COLOURS, GRID, MIDDLE_RADIUS, SHAPES, SIDE, Prompt, Thing
from fromnoise.evaluation.judges.domains import convolution

ASSET = Path(str(files("fromnoise") / "assets")) / "shapes_judge.safetensors"
NEAR = 6.0  # units within which two points are one object: the nearest two objects of a scene are 12 apart
BATCH = 128
_CHANNELS = {"object": 1, "fault": 1, "shape": len(SHAPES), "colour": len(COLOURS), "radius": 1, "offset": 2}


class Maps(NamedTuple):
    """What the network says of each cell; cell (i, j) is centred on (x, y) = (4 j, 4 i) units."""

    object: Tensor  # (B, 1, h, w) logit: the centre of an object is here
    fault: Tensor  # (B, 1, h, w) logit: something no drawn picture shows is here
    shape: Tensor  # (B, 6, h, w) logits
    colour: Tensor  # (B, 8, h, w) logits
    radius: Tensor  # (B, 1, h, w) in units, above the middle one
    offset: Tensor  # (B, 2, h, w) of the centre from that of the cell, x then y, in cells

    def spoiled(self) -> Tensor:
        """Logit that a picture is spoiled anywhere, (B,): a smooth maximum over its cells."""
        return self.fault.flatten(1).logsumexp(1)


class Glance(NamedTuple):
    """What the network sees in a picture."""

    things: list[Thing]
    spoiled: float  # probability that the picture is not as clean as a drawn one

    def shows(self, prompt: Prompt) -> bool:
        """True if the picture is clean, and shows what the prompt says, no less and no more."""
        return self.spoiled < 0.5 and prompt.holds(self.things)


class ShapesNetwork(nn.Module):
    """Six convolutions with batch norm, one cell for every 4 x 4 pixels, then a linear layer of each cell."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *convolution(3, 32, 5, stride=2),
            *convolution(32, 64, 3),
            *convolution(64, 96, 3, stride=2),
            *convolution(96, 96, 3),
            *convolution(96, 96, 3),
            *convolution(96, 96, 3),
        )
        self.head = nn.Conv2d(96, sum(_CHANNELS.values()), 1)

    def forward(self, images: Tensor) -> Maps:
        """images: (B, 3, H, W) in [-1, 1], of 32 pixels for 32 units."""
        border = GRID // 2  # so that a cell lies about each multiple of 4
        seen = self.layers(F.pad(images, [border] * 4, mode="replicate"))  # (B, 96, h, w)
        return Maps(*self.head(seen).split(list(_CHANNELS.values()), 1))

    @torch.inference_mode()
    def look(self, pictures: np.ndarray) -> list[Glance]:
        """What N square pictures (N, H, H, 3) of float values in [0, 1] show; other sizes are scaled to 32 pixels."""
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2 - 1  # (N, 3, H, H)
        if images.shape[-1] != SIDE:
            images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
        found = []
        for part in images.split(BATCH):
            maps = self(part)
            objects, spoiled = maps.object.sigmoid().numpy(), maps.spoiled().sigmoid().tolist()
            shapes, colours = maps.shape.argmax(1).numpy(), maps.colour.argmax(1).numpy()
            radii, offsets = maps.radius.numpy(), maps.offset.numpy()
            for b in range(len(part)):
                things = _points(objects[b, 0], shapes[b], colours[b], radii[b, 0], offsets[b])
                found.append(Glance(things, spoiled[b]))
        return found


def load(path: Path = ASSET) -> tuple[ShapesNetwork, dict[str, str]]:
    """The network that comes with fromnoise, and what is known of it, its sha256 too.

    Raises:
        ValueError: one line, when the file is missing, damaged or holds another network.
    """
    tensors, metadata = load_tensors(path)
    with torch.device("meta"):  # no weights are drawn, from anybody's generator
        network = ShapesNetwork()
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is no judge of shapes: {' '.join(str(error).split())}") from None
    return network.eval(), metadata


def _points(
    objects: np.ndarray, shapes: np.ndarray, colours: np.ndarray, radii: np.ndarray, offsets: np.ndarray
) -> list[Thing]:
    """The objects of one picture, by fields (h, w) and offsets (2, h, w): the surest first, none near a surer one."""
    things: list[Thing] = []
    rows, columns = np.nonzero(objects > 0.5)
    for k in np.argsort(-objects[rows, columns], kind="stable"):
        i, j = int(rows[k]), int(columns[k])
        x, y = GRID * (j + float(offsets[0, i, j])), GRID * (i + float(offsets[1, i, j]))
        if all(max(abs(x - other.x), abs(y - other.y)) >= NEAR for other in things):
            radius = MIDDLE_RADIUS + float(radii[i, j])
            things.append(Thing(SHAPES[shapes[i, j]], list(COLOURS)[colours[i, j]], radius, x, y))
    return things
