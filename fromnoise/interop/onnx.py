"""A backbone as ONNX, checked in onnxruntime.

Legend: B batch, C channels, H height, W width, L tokens, D width of the condition.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.core.types import Cond
from fromnoise.pipeline.pipeline import Pipeline

NAMES = ("x", "t", "tokens", "mask", "vector")
TOLERANCE = 1e-3
LARGEST = 2**30  # weights, in bytes, that are kept in the .onnx file itself: a protobuf holds at most 2 GiB


class Backbone(nn.Module):
    """The network with its condition's three parts as inputs."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor, vector: Tensor) -> Tensor:
        """x (B, C, H, W), t (B,) in [0, 1], tokens (B, L, D), mask (B, L), vector (B, D) -> (B, C, H, W)."""
        return self.network(x, t, Cond(tokens, mask, vector))  # (B, C, H, W)


def export_onnx(pipeline: Pipeline, file: Path) -> float:
    """Write the backbone of `pipeline` to the .onnx `file`; the largest difference of onnxruntime's answer from ours.

    Inputs are those of `Backbone`, output is y, what the target asks for. B and L are free; H and W are those trained
    on. All float32, the mask bool.

    Raises:
        ValueError: one line: onnx, onnxscript or onnxruntime is not installed, or the two differ by more than 1e-3.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"ONNX needs {error.name}: pip install 'fromnoise[onnx]'") from None
    network = Backbone(pipeline.backbone).eval()
    free = torch.export.Dim.DYNAMIC
    size = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    with quiet():
        torch.onnx.export(
            network,
            inputs(pipeline, 2, 5),
            str(file),
            dynamo=True,
            input_names=list(NAMES),
            output_names=["y"],
            dynamic_shapes=({0: free}, {0: free}, {0: free, 1: free}, {0: free, 1: free}, {0: free}),
            external_data=size > LARGEST,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    worst = max(difference(session, network, inputs(pipeline, *shape)) for shape in ((2, 5), (3, 9)))
    if not worst <= TOLERANCE:
        file.unlink()
        raise ValueError(f"onnxruntime differs from torch by {worst:.3g}; allowed: {TOLERANCE:g}")
    return worst


@torch.no_grad()
def difference(session: Any, network: nn.Module, values: tuple[Tensor, ...]) -> float:
    """The largest difference of the two answers."""
    feeds = {name: value.numpy() for name, value in zip(NAMES, values, strict=True)}
    asked = {one.name for one in session.get_inputs()}  # what a network does not read is no input
    (answer,) = session.run(None, {name: feeds[name] for name in asked})
    return float((torch.from_numpy(answer) - network(*values)).abs().max())


def inputs(pipeline: Pipeline, batch: int, length: int) -> tuple[Tensor, ...]:
    """Values to ask with, of all but the last text padded."""
    side, width = pipeline.config.size, pipeline.conditioner.width
    generator = torch.Generator().manual_seed(batch)
    shapes = (batch, *pipeline.latent_shape(side, side)), (batch, length, width), (batch, width)
    x, tokens, vector = (torch.randn(shape, generator=generator) for shape in shapes)
    mask = torch.arange(length) < torch.arange(length - batch + 1, length + 1)[:, None]  # (B, L)
    return x, torch.rand(batch, generator=generator), tokens, mask, vector


@contextlib.contextmanager
def quiet() -> Any:
    """Inside, the exporter tells nothing of its passes."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
