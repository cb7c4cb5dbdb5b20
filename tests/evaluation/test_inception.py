"""The network of FID: names, shapes and sizes as published, and what sets it apart. Its weights are not here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from fromnoise.evaluation.features.extractor import extractor_of
from fromnoise.evaluation.features.inception import (
    CLASSES,
    Forked,
    Inception,
    average,
    maximum,
    read_inception,
    resized,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> Inception:
    """Of chance weights, whose scale keeps features away from 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Inception().eval()


@pytest.fixture(scope="module")
def file(network: Inception, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As the published file is converted."""
    place = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    save_file(network.state_dict(), place)
    yield place
    place.unlink()  # 96 MB


class TestArchitecture:
    def test_as_many_parameters_as_published(self, network: Inception) -> None:
        """torchvision counts 27,161,264 with 1,000 classes and an auxiliary head of 3,326,696."""
        count = sum(p.numel() for p in network.parameters())
        assert count == 27_161_264 - 3_326_696 + (CLASSES - 1000) * 2049

    @pytest.mark.parametrize(
        ("name", "shape"),
        [
            ("Conv2d_1a_3x3.conv.weight", (32, 3, 3, 3)),
            ("Conv2d_4a_3x3.bn.running_var", (192,)),
            ("Mixed_5b.branch_pool.conv.weight", (32, 192, 1, 1)),
            ("Mixed_5d.branch5x5_2.conv.weight", (64, 48, 5, 5)),
            ("Mixed_6a.branch3x3dbl_3.conv.weight", (96, 96, 3, 3)),
            ("Mixed_6b.branch7x7_2.conv.weight", (128, 128, 1, 7)),
            ("Mixed_6c.branch7x7dbl_2.conv.weight", (160, 160, 7, 1)),
            ("Mixed_6e.branch7x7dbl_5.conv.weight", (192, 192, 1, 7)),
            ("Mixed_7a.branch7x7x3_3.conv.weight", (192, 192, 7, 1)),
            ("Mixed_7b.branch3x3_2a.conv.weight", (384, 384, 1, 3)),
            ("Mixed_7c.branch3x3dbl_3b.conv.weight", (384, 384, 3, 1)),
            ("Mixed_7c.branch_pool.conv.weight", (192, 2048, 1, 1)),
            ("fc.weight", (1008, 2048)),
        ],
    )
    def test_names_and_shapes_of_the_published_file(
        self, network: Inception, name: str, shape: tuple[int, ...]
    ) -> None:
        assert network.state_dict()[name].shape == shape

    def test_sides_on_the_way(self, network: Inception) -> None:
        sides: dict[str, tuple[int, ...]] = {}

        def remember(name: str) -> Any:
            return lambda block, args, out: sides.update({name: tuple(out.shape[1:])})

        hooks = [block.register_forward_hook(remember(name)) for name, block in network.named_children()]
        with torch.no_grad():
            assert network(torch.zeros(1, 3, 299, 299)).shape == (1, 2048)
        for hook in hooks:
            hook.remove()
        assert sides["Conv2d_2b_3x3"] == (64, 147, 147) and sides["Conv2d_4a_3x3"] == (192, 71, 71)
        assert sides["Mixed_5b"] == (256, 35, 35) and sides["Mixed_5d"] == (288, 35, 35)
        assert sides["Mixed_6a"] == sides["Mixed_6e"] == (768, 17, 17)
        assert sides["Mixed_7a"] == (1280, 8, 8) and sides["Mixed_7b"] == sides["Mixed_7c"] == (2048, 8, 8)

    def test_what_sets_it_apart(self, network: Inception) -> None:
        ones = torch.ones(1, 1, 4, 4)
        torch.testing.assert_close(average(ones), ones)  # with padding counted a corner would be 4/9
        assert network.Mixed_7b.pool is average and network.Mixed_7c.pool is maximum
        assert all(m.eps == 0.001 for m in network.modules() if isinstance(m, nn.BatchNorm2d))

    def test_a_fork_reads_one_input_twice(self, network: Inception) -> None:
        block, x = network.Mixed_7c, torch.randn(1, 2048, 3, 3, generator=torch.Generator().manual_seed(0))
        assert isinstance(block, Forked)
        with torch.no_grad():
            single = block.get_submodule("branch3x3_1")(x)
            expected = block.get_submodule("branch3x3_2b")(single)
            pooled = block.get_submodule("branch_pool")(F.max_pool2d(x, 3, 1, 1))
            found = block(x)
        torch.testing.assert_close(found[:, 704:1088], expected)
        torch.testing.assert_close(found[:, -192:], pooled)


class TestResizing:
    def test_pixels_are_read_from_their_corners(self) -> None:
        x = torch.arange(4.0).reshape(1, 1, 1, 4).expand(1, 1, 4, 4)
        found = resized(x, 8)[0, 0]
        torch.testing.assert_close(found[0], torch.tensor([0, 0.5, 1, 1.5, 2, 2.5, 3, 3]))
        torch.testing.assert_close(found[0], found[7])

    def test_the_same_size_and_constants_stay(self) -> None:
        x = torch.rand(2, 3, 299, 299, generator=torch.Generator().manual_seed(0))
        assert torch.equal(resized(x), x)
        assert bool((resized(torch.full((1, 3, 32, 20), 7.0)) == 7).all())


class TestFile:
    def test_features_are_the_networks(self, network: Inception, file: Path) -> None:
        extractor = extractor_of(str(file), CPU)
        levels = torch.randint(256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()
        with torch.no_grad():
            expected = network((resized(levels) - 128) / 128)
        found = extractor.see(levels / 127.5 - 1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        assert found.shape == (1, 2048) and len(extractor.sha256) == 64

    def test_without_head_and_counters(self, network: Inception, tmp_path: Path) -> None:
        body = {
            key: value
            for key, value in network.state_dict().items()
            if not key.startswith("fc.") and "num_batches" not in key
        }
        save_file(body, tmp_path / "body.safetensors")
        read = read_inception(tmp_path / "body.safetensors")
        assert not any(tensor.is_meta for tensor in (*read.parameters(), *read.buffers()))
        torch.testing.assert_close(
            read.state_dict()["Mixed_6a.branch3x3.conv.weight"], body["Mixed_6a.branch3x3.conv.weight"]
        )
        del body["Mixed_7c.branch1x1.bn.bias"]
        save_file(body, tmp_path / "cut.safetensors")
        with pytest.raises(ValueError, match=r"cut.safetensors holds no FID Inception.*Mixed_7c.branch1x1.bn.bias"):
            read_inception(tmp_path / "cut.safetensors")

    def test_what_is_another_network_is_refused(self, tmp_path: Path) -> None:
        save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
        with pytest.raises(ValueError, match=r"other\.safetensors holds no FID Inception"):
            extractor_of(str(tmp_path / "other.safetensors"), CPU)
        with pytest.raises(ValueError, match="cannot read"):
            extractor_of(str(tmp_path / "none.safetensors"), CPU)
