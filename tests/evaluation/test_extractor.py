"""What sees pictures: features are those of the network itself, and their hash tells what they hang on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fromnoise.conditioning.frozen import quiet
from fromnoise.core.files import content_hash
from fromnoise.evaluation.features.clipscore import PREFIX, clipscore, scores
from fromnoise.evaluation.features.extractor import Extractor, extractor_of, rounded
from fromnoise.evaluation.judges import classifier
from fromnoise.evaluation.judges.domains import DIGITS, PHOTOS
from fromnoise.pipeline.pictures import as_pictures

CPU = torch.device("cpu")
PICTURES = torch.rand(5, 3, 40, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def save_dino(folder: Path) -> Path:
    """A tiny DINOv2."""
    import transformers

    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        config = transformers.Dinov2Config(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
        )
        transformers.Dinov2Model(config).save_pretrained(folder)
        side = {"height": 28, "width": 28}
        transformers.BitImageProcessorPil(size={"shortest_edge": 32}, crop_size=side).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(save_clip: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


class TestOwn:
    def test_pixels_are_averages_over_cells(self) -> None:
        flat = torch.linspace(-1, 1, 4).view(4, 1, 1, 1).expand(-1, 3, 64, 32)
        found = extractor_of("pixels", CPU).see(flat)
        torch.testing.assert_close(found, torch.linspace(-1, 1, 4)[:, None].expand(-1, 3 * 16 * 16))
        small = torch.rand(2, 1, 8, 8)  # of fewer pixels than cells each is seen several times
        seen = small.repeat_interleave(2, 2).repeat_interleave(2, 3).flatten(1)
        torch.testing.assert_close(extractor_of("pixels", CPU).see(small), seen)
        assert extractor_of("pixels", CPU).see(torch.rand(2, 1, 12, 20)).shape == seen.shape  # buckets are compared

    def test_a_classifier_sees_what_it_decides_from(self) -> None:
        network, digits = classifier.load(DIGITS)[0], torch.rand(3, 1, 28, 28) * 2 - 1
        torch.testing.assert_close(extractor_of("mnist", CPU).see(digits), network.classify(digits).features)

    def test_a_classifier_of_colours_sees_grey_and_any_size(self) -> None:
        extractor = extractor_of("cifar10", CPU)
        grey = torch.rand(2, 1, 64, 48) * 2 - 1
        assert extractor.see(grey).shape == (2, PHOTOS.features)
        torch.testing.assert_close(extractor.see(grey), extractor.see(grey.expand(-1, 3, -1, -1)))
        with pytest.raises(ValueError, match="are no digits"):
            extractor_of("mnist", CPU).see(PICTURES)

    def test_the_hash_is_of_weights_and_preprocessing(self) -> None:
        mnist, cifar10 = (extractor_of(name, CPU) for name in ("mnist", "cifar10"))
        assert mnist.weights == content_hash(DIGITS.asset)
        other = Extractor(name="x", weights=mnist.weights, preprocessing={"resize": 1}, see=mnist.see)
        assert len({mnist.sha256, cifar10.sha256, other.sha256, extractor_of("pixels", CPU).sha256}) == 4
        assert extractor_of("mnist", CPU).sha256 == mnist.sha256

    def test_features_come_in_order_and_are_told(self) -> None:
        told: list[tuple[int, int]] = []
        extractor = extractor_of("pixels", CPU)
        found = extractor.features(PICTURES.split(2), 5, lambda done, total: told.append((done, total)))
        torch.testing.assert_close(found, extractor.see(PICTURES))
        assert told == [(2, 5), (4, 5), (5, 5)]

    def test_an_unknown_name_is_told_with_what_there_is(self) -> None:
        with pytest.raises(ValueError, match=r"nothing sees pictures at 'mnst'; allowed: the folder .* nearest: mnist"):
            extractor_of("mnst", CPU)


class TestVision:
    def test_clip_sees_and_reads_in_one_space(self, clip: Path) -> None:
        import transformers

        extractor = extractor_of(str(clip), CPU)
        with quiet(), torch.no_grad():
            model: Any = transformers.CLIPModel.from_pretrained(clip).eval()
            processor = transformers.CLIPImageProcessorPil.from_pretrained(clip)
            shown = [Image.fromarray(rounded(one).permute(1, 2, 0).byte().numpy()) for one in PICTURES]
            pixels = processor(images=shown, return_tensors="pt")["pixel_values"]
            expected = model.get_image_features(pixel_values=pixels).pooler_output
            tokens = transformers.AutoTokenizer.from_pretrained(clip)(["a red circle"], return_tensors="pt")
            said = model.get_text_features(**tokens).pooler_output
        assert pixels.shape == (5, 3, 32, 32)
        torch.testing.assert_close(extractor.see(PICTURES), expected, rtol=1e-4, atol=1e-5)
        assert extractor.read is not None
        torch.testing.assert_close(extractor.read(["a red circle", "one"])[:1], said, rtol=1e-4, atol=1e-5)
        assert extractor.read(["red " * 40]).shape == (1, 12)  # what is too long is cut

    def test_dino_gives_its_class_token(self, tmp_path: Path) -> None:
        import transformers

        extractor = extractor_of(str(save_dino(tmp_path)), CPU)
        with quiet(), torch.no_grad():
            model = transformers.Dinov2Model.from_pretrained(tmp_path).eval()
            processor = transformers.BitImageProcessorPil.from_pretrained(tmp_path)
            pixels = processor(images=as_pictures(PICTURES), return_tensors="pt")["pixel_values"]
            expected = model(pixel_values=pixels).pooler_output
        assert extractor.read is None and pixels.shape == (5, 3, 28, 28)
        torch.testing.assert_close(extractor.see(PICTURES), expected, rtol=1e-4, atol=1e-5)

    def test_grey_pictures_are_seen_in_colours(self, clip: Path) -> None:
        grey = PICTURES[:, :1]
        extractor = extractor_of(str(clip), CPU)
        torch.testing.assert_close(extractor.see(grey), extractor.see(grey.expand(-1, 3, -1, -1)))

    def test_other_weights_and_another_preprocessing_are_another_hash(
        self, clip: Path, save_clip: Callable[..., Path], tmp_path: Path
    ) -> None:
        ours = extractor_of(str(clip), CPU).sha256
        other = save_clip(tmp_path / "other", seed=1)
        assert extractor_of(str(other), CPU).sha256 != ours
        same = save_clip(tmp_path / "same")
        assert extractor_of(str(same), CPU).sha256 == ours
        settings = json.loads((same / "preprocessor_config.json").read_text())
        settings["image_mean"] = [0.0, 0.0, 0.0]
        (same / "preprocessor_config.json").write_text(json.dumps(settings))
        assert extractor_of(str(same), CPU).sha256 != ours

    def test_what_cannot_be_read_is_told_in_one_line(
        self, clip: Path, tmp_path: Path, save_clip: Callable[..., Path], save_encoder: Callable[..., Path]
    ) -> None:
        for missing, message in (
            ("preprocessor_config.json", "no file .*preprocessor_config.json"),
            ("model.safetensors", "no file .*pickled weights are never read"),
        ):
            folder = save_clip(tmp_path / missing.partition(".")[0])
            (folder / missing).unlink()
            with pytest.raises(ValueError, match=message):
                extractor_of(str(folder), CPU)
        text = save_encoder(tmp_path / "bert", "bert")
        (text / "preprocessor_config.json").write_bytes((clip / "preprocessor_config.json").read_bytes())
        with pytest.raises(ValueError, match="sees no pictures: BertModel reads input_ids"):
            extractor_of(str(text), CPU)


class TestHub:
    def test_a_name_is_fetched(self, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[str, str | None]] = []

        def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
            asked.append((name, revision))
            assert "*.bin" not in allow_patterns and "preprocessor_config.json" in allow_patterns
            return str(clip)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        found = extractor_of("owner/tiny-clip@main", CPU)
        assert asked == [("owner/tiny-clip", "main")] and found.sha256 == extractor_of(str(clip), CPU).sha256

    def test_what_the_hub_does_not_give_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def download(*args: object, **more: object) -> str:
            raise OSError("no route\nto anywhere")

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        with pytest.raises(
            ValueError, match=r"no folder at owner/none, and the hub does not give it \(no route to any"
        ):
            extractor_of("owner/none", CPU)


class TestCLIPScore:
    def test_the_closed_form(self) -> None:
        angle = torch.tensor([0.0, 60.0, 90.0, 180.0]).deg2rad()
        seen = torch.stack((angle.cos(), angle.sin()), 1) * 3
        found = scores(seen, torch.tensor([[2.0, 0.0]]).expand(4, -1))
        torch.testing.assert_close(found, torch.tensor([2.5, 1.25, 0.0, 0.0]).double(), atol=1e-6, rtol=0)

    def test_as_torchmetrics_has_it(self, clip: Path) -> None:
        """Which counts on CLIP as transformers had it before version 5: here it is given that."""
        import transformers
        from torchmetrics.functional.multimodal import clip_score

        class Old(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model: Any = transformers.CLIPModel.from_pretrained(clip).eval()
                self.config = self.model.config

            def get_image_features(self, pixels: torch.Tensor) -> torch.Tensor:
                return self.model.get_image_features(pixel_values=pixels).pooler_output

            def get_text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
                return self.model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output

        shows = transformers.CLIPImageProcessorPil.from_pretrained(clip)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(clip)

        def processor(images: Any = None, text: Any = None, **how: Any) -> Any:
            if text is not None:
                return tokenizer(text, **how)
            return shows(images=[image.numpy() for image in images], return_tensors="pt")

        prompts = ["a red circle", "two green square", "cat", "one blue photo of a square", "above"]
        with quiet(), torch.no_grad():
            model = Old()
            levels = rounded(PICTURES).byte()
            pairs = zip(levels, prompts, strict=True)
            expected = [float(clip_score(one, said, lambda: (model, processor))) for one, said in pairs]  # type: ignore
        extractor = extractor_of(str(clip), CPU)
        seen = extractor.see(PICTURES)
        found = clipscore(extractor, seen, prompts, seen, prompts)["cosine"]
        assert found == pytest.approx(sum(expected) / 5, rel=1e-3) and found > 0.1

    def test_prompts_are_told_from_others_and_real_pictures_stand_beside(self) -> None:
        words = {"a": 0, "b": 1, "c": 2}

        def read(texts: Any) -> torch.Tensor:
            return torch.eye(3)[[words[text.removeprefix(PREFIX)] for text in texts]]

        extractor = Extractor(name="known", weights="", preprocessing={}, see=lambda x: x, read=read)
        prompts = ["a", "b", "c"]
        found = clipscore(extractor, torch.eye(3), prompts, torch.eye(3)[[0, 2, 1]], prompts)
        assert found["clipscore"] == pytest.approx(2.5) and found["cosine"] == pytest.approx(100)
        assert found["shuffled"] == 0 and found["real"] == pytest.approx(2.5 / 3) and found["samples"] == 3
