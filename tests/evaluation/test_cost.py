"""What a model costs, against a count by hand."""

import pytest
import torch
from torch import nn

from fromnoise.conditioning.config import LabelConfig, NoConditionConfig, TextConfig
from fromnoise.evaluation import cost
from fromnoise.models.config import CNNConfig, DiTConfig, MMDiTConfig
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.pipeline import Pipeline

DIT = DiTConfig(patch=4, width=24, depth=2, head_width=12)
MODELS = [
    ModelConfig(backbone=DIT, conditioner=LabelConfig(width=16), channels=1, size=28),
    ModelConfig(backbone=CNNConfig(width=16), conditioner=LabelConfig(width=16), channels=1, size=28),
    ModelConfig(backbone=CNNConfig(width=16), conditioner=NoConditionConfig(width=16), channels=1, size=28),
]


@pytest.mark.parametrize("config", MODELS, ids=["dit", "cnn", "unconditional"])
def test_flops_are_those_of_products_convolutions_and_attention(config):
    pipeline, count = Pipeline.build(config, [], 0), 0

    def linear(module: nn.Linear, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal count
        count += 2 * output.numel() * module.in_features

    def convolution(module: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal count
        count += 2 * output.numel() * module.in_channels // module.groups * module.kernel_size[0] ** 2

    def transposed(module: nn.ConvTranspose2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal count
        count += 2 * inputs[0].numel() * module.out_channels * module.kernel_size[0] ** 2

    hooks = {nn.Linear: linear, nn.Conv2d: convolution, nn.ConvTranspose2d: transposed}
    for module in pipeline.modules():
        for kind, hook in hooks.items():
            if isinstance(module, kind):
                module.register_forward_hook(hook)
    found = cost.flops(pipeline)
    if config.backbone == DIT:
        tokens = (28 // DIT.patch) ** 2
        count += 2 * tokens * DIT.patch**2 * DIT.width  # patches read, by the weights of a module that is not called
        count += DIT.depth * 2 * 2 * tokens**2 * DIT.width  # scores, and the values they weigh
    assert found == count


def test_training_takes_about_three_forwards_and_leaves_no_gradients():
    text = TextConfig(vocabulary=300, width=16, depth=1, heads=2)
    config = ModelConfig(backbone=MMDiTConfig(patch=4, width=24, depth=2, head_width=12), conditioner=text)
    pipeline = Pipeline.build(config, ["a red circle"], 0)
    assert 2.8 < cost.training_flops(pipeline) / cost.flops(pipeline) <= 3
    assert all(p.grad is None for p in pipeline.parameters())


def test_parameters():
    pipeline = Pipeline.build(MODELS[0], [], 0)
    assert cost.parameters(pipeline) == sum(tensor.numel() for tensor in pipeline.state_dict().values())
