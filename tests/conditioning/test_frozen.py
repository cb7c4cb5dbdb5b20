"""Frozen text encoders: what transformers makes of the same texts, known by their hash, and never part of the model."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fromnoise.cli.main import main
from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig
from fromnoise.conditioning.folder import EncoderFault, complete
from fromnoise.conditioning.frozen import Encoded, FrozenEncoder, FrozenTextConditioner, quiet
from fromnoise.core.types import Batch, Cond
from fromnoise.data.prepared import pad
from fromnoise.data.shards import Text
from fromnoise.pipeline.load import load

VOCABULARY = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "clip" / "bpe_simple_vocab_16e6.txt.gz"
NO_LABELS = torch.zeros(0, dtype=torch.int64)
TEXTS = ["a red circle above a blue square", "", "cat", "a photo of a green cat left of a blue circle of a cat"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole tiny CLIP, pictures and texts, as the hub has the large ones, with the tokenizer of the real ones."""
    if not VOCABULARY.is_file():
        pytest.skip("$FROMNOISE_DATA/clip is absent")
    folder = tmp_path_factory.mktemp("clip")
    with gzip.open(VOCABULARY, "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().split("\n")[1 : 49152 - 256 - 2 + 1]]
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    alphabet = [chr(byte) for byte in plain] + [chr(256 + i) for i in range(len(others))]
    words = [*alphabet, *(f"{one}</w>" for one in alphabet), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    tokenizer: Any = transformers.CLIPTokenizer
    tokenizer({word: i for i, word in enumerate(words)}, merges, model_max_length=77).save_pretrained(folder)
    sizes = dict(hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    special = dict(vocab_size=len(words), bos_token_id=49406, eos_token_id=49407, pad_token_id=49407)
    config = transformers.CLIPConfig(
        text_config=sizes | special, vision_config=sizes | dict(image_size=8, patch_size=4), projection_dim=4
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def make(*encoders: EncoderConfig, width: int = 10) -> FrozenTextConditioner:
    torch.manual_seed(0)
    return FrozenTextConfig(encoders=encoders, width=width).build([])


def said(conditioner: FrozenTextConditioner, *captions: str) -> Cond:
    return conditioner(conditioner.encode(captions, NO_LABELS))


def stock(folder: Path, cls: Any, length: int) -> tuple[Any, Any]:
    """The tokenizer's answer, padded and cut, and the model's, with its hidden states."""
    with quiet(), torch.no_grad():
        model = cls.from_pretrained(folder).eval()
        batch = transformers.AutoTokenizer.from_pretrained(folder)(
            TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return batch, model(**batch, output_hidden_states=True)


def assert_same_as_stock(read: Encoded, batch: Any, hidden: torch.Tensor) -> None:
    longest = int(batch["attention_mask"].sum(1).max())
    assert torch.equal(read.mask, batch["attention_mask"][:, :longest].bool()) and not read.mask.all()
    real = read.mask[..., None]
    torch.testing.assert_close(read.tokens, hidden[:, :longest] * real, atol=1e-5, rtol=1e-5)
    assert not read.tokens[~read.mask].any()


class TestWhatIsRead:
    @pytest.mark.parametrize(("layer", "state"), [("last", None), ("penultimate", -2)])
    def test_clips_hidden_states_mask_and_last_token_are_those_of_transformers(
        self, clip: Path, layer: Any, state: int | None
    ) -> None:
        batch, output = stock(clip, transformers.CLIPTextModel, 12)
        read = FrozenEncoder(EncoderConfig(path=str(clip), length=12, layer=layer)).read(TEXTS)
        hidden = output.last_hidden_state if state is None else output.hidden_states[state]
        assert_same_as_stock(read, batch, hidden)
        torch.testing.assert_close(read.vector, output.pooler_output, atol=1e-5, rtol=1e-5)
        assert read.mask.sum(1).tolist() == [9, 2, 3, 12]  # start and end are tokens; the last text is cut to 12

    def test_clips_words_have_the_numbers_of_the_published_vocabulary(self, clip: Path) -> None:
        encoder = FrozenEncoder(EncoderConfig(path=str(clip)))
        assert encoder.tokenizer("A photo of a  cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]
        assert encoder.lengths(["", "a photo"]) == [2, 4]

    @pytest.mark.parametrize(("kind", "cls"), [("t5", "T5EncoderModel"), ("bert", "BertModel"), ("gpt2", "GPT2Model")])
    def test_others_too_and_pooled_is_the_mean_of_real_tokens(
        self, folders: dict[str, Path], kind: str, cls: str
    ) -> None:
        batch, output = stock(folders[kind], getattr(transformers, cls), 8)
        read = FrozenEncoder(EncoderConfig(path=str(folders[kind]), length=8)).read(TEXTS)
        assert_same_as_stock(read, batch, output.last_hidden_state)
        torch.testing.assert_close(read.vector[0], output.last_hidden_state[0, :8].mean(0), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(read.vector[2], output.last_hidden_state[2, :2].mean(0), atol=1e-5, rtol=1e-5)

    def test_of_a_model_of_two_halves_the_one_that_reads(self, folders: dict[str, Path]) -> None:
        batch, output = stock(folders["bart"], transformers.BartModel, 8)
        read = FrozenEncoder(EncoderConfig(path=str(folders["bart"]), length=8)).read(TEXTS)
        assert_same_as_stock(read, batch, output.encoder_last_hidden_state)

    def test_texts_beside_it_their_number_and_padding_change_nothing(
        self, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoder = FrozenEncoder(EncoderConfig(path=str(folders["t5"]), length=16))
        together = encoder.read(TEXTS)
        for i, text in enumerate(TEXTS):
            for one, many in zip(encoder.read([text]).widened(15), together, strict=True):
                torch.testing.assert_close(one[0], many[i], atol=1e-6, rtol=1e-5)
        monkeypatch.setattr("fromnoise.conditioning.frozen.TEXTS", 3)
        for parts, whole in zip(encoder.read(TEXTS), together, strict=True):
            torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)
        short = FrozenEncoder(EncoderConfig(path=str(folders["t5"]), length=9)).read(TEXTS[:3])
        torch.testing.assert_close(short.tokens, together.tokens[:3, :8], atol=1e-6, rtol=1e-5)

    def test_a_text_of_no_token_is_read_as_one_of_padding(self, folders: dict[str, Path], tmp_path: Path) -> None:
        folder = shutil.copytree(folders["gpt2"], tmp_path / "bare")
        told = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(told | {"post_processor": None}))
        read = FrozenEncoder(EncoderConfig(path=str(folder), length=4)).read(["", "cat"])
        assert read.mask.sum(1).tolist() == [1, 1] and bool(read.vector.isfinite().all())
        assert not torch.equal(read.vector[0], read.vector[1])

    def test_truncation_is_counted_and_told(self, folders: dict[str, Path]) -> None:
        t5, bert = (str(folders[kind]) for kind in ("t5", "bert"))
        conditioner = make(EncoderConfig(path=t5, length=8), EncoderConfig(path=bert, length=6))
        assert conditioner.encoders[0].lengths(TEXTS) == [8, 1, 2, 15]
        assert conditioner.cut(TEXTS) == 0.5 and conditioner.cut(TEXTS[1:3]) == 0
        assert conditioner.notice(TEXTS[1:3]) == ""
        assert conditioner.notice(TEXTS) == (
            f"1 of 4 texts longer than the 8 tokens that {t5} reads are cut: the longest loses 47% ({TEXTS[3][:40]!r}"
            f"...); 2 of 4 texts longer than the 6 tokens that {bert} reads are cut: the longest loses 60% "
            f"({TEXTS[3][:40]!r}...)"
        )


class TestConditioner:
    @pytest.fixture
    def both(self, folders: dict[str, Path]) -> FrozenTextConditioner:
        t5 = EncoderConfig(path=str(folders["t5"]), length=8, dropout=0.25)
        return make(t5, EncoderConfig(path=str(folders["bert"]), length=6, dropout=0.5))

    def test_tokens_stand_in_one_sequence_under_a_map_of_each_encoder(self, both: FrozenTextConditioner) -> None:
        cond = said(both, *TEXTS)
        reads = [encoder.read(TEXTS) for encoder in both.encoders]
        weights = [p.detach() for p in both.parameters()]
        assert [read.mask.shape[1] for read in reads] == [8, 6]
        tokens = [read.tokens @ weight.T for read, weight in zip(reads, weights, strict=True)]
        torch.testing.assert_close(cond.tokens, torch.cat(tokens, 1), atol=1e-5, rtol=1e-5)
        assert torch.equal(cond.mask, torch.cat([read.mask for read in reads], 1))
        side_by_side = torch.cat([read.vector for read in reads], 1) @ torch.cat(weights, 1).T
        torch.testing.assert_close(cond.vector, side_by_side, atol=1e-5, rtol=1e-5)
        assert not cond.tokens[~cond.mask].any() and cond.tokens.shape == (4, 14, 10)

    def test_equal_captions_are_encoded_once_and_nothing_never(
        self, both: FrozenTextConditioner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[list[str]] = []
        read = FrozenEncoder.read
        monkeypatch.setattr(FrozenEncoder, "read", lambda self, texts: (seen.append(list(texts)), read(self, texts))[1])
        features = both.encode(["cat", "", "a cat", "cat"], NO_LABELS)
        assert seen == [["cat", "a cat"]] * 2
        assert torch.equal(features["tokens_0"][0], features["tokens_0"][3])
        assert not torch.equal(features["tokens_0"][0], features["tokens_0"][2])

    def test_nothing_said_is_the_same_dropped_in_training_drawn_and_said(self, both: FrozenTextConditioner) -> None:
        null = both.null(2)
        features = both.encode(["cat", "a red circle"], NO_LABELS)
        everything = [EncoderConfig.model_construct(**{**dict(one.config), "dropout": 1.0}) for one in both.encoders]
        by_objective = both(features).where(torch.tensor([False, False]), both.null(2))
        empty = said(both, "", "")
        for encoder, config in zip(both.encoders, everything, strict=True):
            encoder.config = config
        by_encoders = both(both.dropped(features, torch.Generator().manual_seed(0)))
        for name in ("tokens", "mask", "vector"):
            assert torch.equal(getattr(null, name), getattr(by_objective, name))
            for other in (by_encoders, empty):
                torch.testing.assert_close(getattr(null, name), getattr(other, name), atol=1e-6, rtol=1e-6)
        assert null.mask.sum(1).tolist() == [2, 2]  # the end of the text, for each encoder
        assert (null.vector - both(features).vector).abs().max() > 0.1

    def test_to_validate_nothing_is_dropped(self, both: FrozenTextConditioner) -> None:
        batch = Batch(torch.zeros(20, 1, 1, 1), ["cat"] * 20, torch.zeros(20, dtype=torch.int64))
        whole, read = both.encode(batch.captions, batch.labels), both.read(batch)
        trained = both.read(batch, torch.Generator().manual_seed(0))
        assert all(torch.equal(whole[key], read[key]) for key in whole)
        assert any(not torch.equal(whole[key], trained[key]) for key in whole)

    def test_features_of_any_padding_give_the_same_condition_of_one_shape(self, both: FrozenTextConditioner) -> None:
        captions = ["cat", "", "a cat", "cat"]
        narrow = both.encode(captions, NO_LABELS)
        assert [narrow[f"tokens_{i}"].shape for i in (0, 1)] == [(4, 3, 16), (4, 3, 12)]
        assert [narrow[f"mask_{i}"].shape for i in (0, 1)] == [(4, 3)] * 2
        reads = [Encoded(*(narrow[f"{name}_{i}"] for name in Encoded._fields)) for i in (0, 1)]
        for lengths in ((3, 3), (5, 4), (8, 6)):
            wide = [read.widened(length) for read, length in zip(reads, lengths, strict=True)]
            features = {f"{k}_{i}": value for i, read in enumerate(wide) for k, value in read._asdict().items()}
            chances = [torch.Generator().manual_seed(3) for _ in range(2)]
            gone = both.dropped(features, chances[0])
            for given, expected in ((features, both(narrow)), (gone, both(both.dropped(narrow, chances[1])))):
                cond = both(given)
                assert cond.tokens.shape == (4, 14, 10) and cond.mask.shape == (4, 14)
                assert torch.equal(cond.mask, expected.mask)
                torch.testing.assert_close(cond.tokens, expected.tokens, atol=1e-6, rtol=1e-6)
                torch.testing.assert_close(cond.vector, expected.vector, atol=1e-6, rtol=1e-6)
        empty, null = both.encode([""] * 4, NO_LABELS), both.null(4)
        assert empty["tokens_0"].shape == (4, 1, 16)
        assert null.tokens.shape == (4, 14, 10) and torch.equal(both(empty).mask, null.mask)
        torch.testing.assert_close(both(empty).tokens, null.tokens, atol=1e-6, rtol=1e-6)

    def test_a_prepared_data_set_serves_features_that_say_the_same(self, both: FrozenTextConditioner) -> None:
        features = both.encode(TEXTS, NO_LABELS)
        masks = [features["mask_0"], features["mask_1"]]
        texts = [
            Text(
                tokens=tuple(features[f"tokens_{i}"][row, : masks[i][row].sum()] for i in (0, 1)),
                vectors=tuple(features[f"vector_{i}"][row] for i in (0, 1)),
            )
            for row in range(len(TEXTS))
        ]
        for rows in ([1], [2, 1], [0, 1, 2, 3]):
            served = both(both.dropped(pad([texts[row] for row in rows]), torch.Generator().manual_seed(2)))
            encoded = both.encode([TEXTS[row] for row in rows], NO_LABELS)
            expected = both(both.dropped(encoded, torch.Generator().manual_seed(2)))
            assert served.tokens.shape == (len(rows), 14, 10) and torch.equal(served.mask, expected.mask)
            torch.testing.assert_close(served.tokens, expected.tokens, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(served.vector, expected.vector, atol=1e-5, rtol=1e-5)

    def test_each_encoder_is_dropped_at_its_own_rate_apart_from_the_other(self, both: FrozenTextConditioner) -> None:
        count = 20_000
        one = both.encode(["cat"], NO_LABELS)
        features = {key: value.expand(count, *value.shape[1:]) for key, value in one.items()}
        left = both.dropped(features, torch.Generator().manual_seed(7))
        gone = [(left[f"vector_{i}"] == both.nothing[i].vector).all(1) for i in (0, 1)]
        for i in (0, 1):
            assert torch.equal(gone[i], left[f"mask_{i}"].sum(1) == 1)
            kept = ~gone[i]
            assert torch.equal(left[f"tokens_{i}"][kept], features[f"tokens_{i}"][kept])
        rates = [gone[0], gone[1], gone[0] & gone[1]]
        for rate, expected in zip(rates, (0.25, 0.5, 0.125), strict=True):
            assert abs(rate.float().mean() - expected) < 4 * (expected * (1 - expected) / count) ** 0.5
        again = both.dropped(features, torch.Generator().manual_seed(7))
        assert all(torch.equal(again[key], left[key]) for key in left)

    def test_the_joint_rate_is_told(self, both: FrozenTextConditioner) -> None:
        config = FrozenTextConfig(encoders=tuple(one.config for one in both.encoders))
        t5, bert = (one.path for one in config.encoders)
        assert config.notice(0.1) == (
            f"text dropped: whole prompts 0.1, and apart from that {t5} 0.25, {bert} 0.5; nothing is read of 21.250%"
        )

    @pytest.mark.parametrize("read", ["tokens", "vector"])
    def test_gradient_reaches_every_parameter_from_tokens_or_vector_alone(
        self, both: FrozenTextConditioner, read: str
    ) -> None:
        getattr(said(both, *TEXTS), read).sum().backward()
        parameters = dict(both.named_parameters())
        assert set(parameters) == {"project.0.weight", "project.1.weight"}
        for parameter in parameters.values():
            assert parameter.grad is not None and parameter.grad.abs().max() > 1e-4

    def test_encoders_are_frozen_out_of_sight_and_go_along(self, both: FrozenTextConditioner) -> None:
        assert set(both.state_dict()) == {"project.0.weight", "project.1.weight"}
        both.train()
        for encoder in both.encoders:
            assert not any(module.training for module in encoder.model.modules())
            assert not any(p.requires_grad for p in encoder.model.parameters())
        assert not any(value.requires_grad for value in both.encode(TEXTS, NO_LABELS).values())
        both.to("meta")
        assert {p.device.type for one in both.encoders for p in one.model.parameters()} == {"meta"}


class TestIdentity:
    def test_a_checkpoint_takes_its_own_encoder_and_no_other(
        self, save_encoder: Callable[..., Path], tmp_path: Path
    ) -> None:
        folder = save_encoder(tmp_path / "t5", "t5")
        config = FrozenTextConfig(encoders=(EncoderConfig(path=str(folder), length=8),), width=10)
        state = config.build([]).state
        assert json.loads(state["encoders"]) == [{"sha256": complete(folder).sha256, "length": 8, "layer": "last"}]
        assert config.restore(state).state == state
        for change in ({"length": 9}, {"layer": "penultimate"}):  # another one makes other features
            other = FrozenTextConfig(encoders=(config.encoders[0].model_copy(update=change),), width=10)
            assert other.build([]).state != state
        moved = shutil.copytree(folder, tmp_path / "moved")
        assert (
            FrozenTextConfig(encoders=(EncoderConfig(path=str(moved), length=8, dropout=0.5),)).build([]).state == state
        )

        def refused() -> str:
            with pytest.raises(EncoderFault) as error:
                config.restore(state)
            assert "\n" not in str(error.value)
            return str(error.value)

        save_encoder(folder, "t5", seed=1)
        assert re.match(rf"{folder} holds another text encoder \(sha256 \w{{12}}\.\.\.\) than the model", refused())
        shutil.rmtree(folder)
        assert refused().startswith(f"no folder at {folder}; path in model.conditioner.encoders is a folder")

    def test_weights_that_are_damaged_or_missing_are_refused_in_one_line(
        self, folders: dict[str, Path], tmp_path: Path
    ) -> None:
        folder = shutil.copytree(folders["bert"], tmp_path / "bert")
        file, encoder = folder / "model.safetensors", EncoderConfig(path=str(folder), length=8)
        tensors = load_file(file)
        pooler = {name for name in tensors if name.startswith("pooler.")}
        assert pooler
        save_file({k: v for k, v in tensors.items() if k not in pooler}, file, metadata={"format": "pt"})
        assert FrozenEncoder(encoder).read(["cat"]).vector.shape == (1, 12)  # nothing reads BERT's pooler
        save_file({k: v for k, v in tensors.items() if "word_embeddings" not in k}, file, metadata={"format": "pt"})
        with pytest.raises(EncoderFault, match=r"lacks 1 weights of .*: embeddings\.word_embeddings\.weight"):
            FrozenEncoder(encoder)
        file.write_bytes(file.read_bytes()[:500])
        with pytest.raises(EncoderFault, match="cannot read the text encoder") as error:
            FrozenEncoder(encoder)
        assert "\n" not in str(error.value)

    def test_a_length_that_the_encoder_cannot_read_is_refused(self, folders: dict[str, Path]) -> None:
        with pytest.raises(EncoderFault, match=r"length of the encoder .* is 33; allowed: 1 to 32 tokens"):
            FrozenEncoder(EncoderConfig(path=str(folders["bert"]), length=33))

    def test_a_model_that_reads_no_text_is_refused(self, folders: dict[str, Path], tmp_path: Path) -> None:
        folder = shutil.copytree(folders["t5"], tmp_path / "vit")
        config = transformers.ViTConfig(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4
        )
        with quiet():
            transformers.ViTModel(config).save_pretrained(folder)
        with pytest.raises(EncoderFault, match="holds no text encoder: ViTModel reads pixel_values"):
            FrozenEncoder(EncoderConfig(path=str(folder)))


def test_an_encoder_can_be_said_in_one_word() -> None:
    word = "some/clip,length=16,layer=penultimate,dropout=0.4"
    (encoder,) = FrozenTextConfig.model_validate({"encoders": [word]}).encoders
    assert encoder == EncoderConfig(path="some/clip", length=16, layer="penultimate", dropout=0.4)
    assert EncoderConfig.model_validate("path=some/clip") == EncoderConfig(path="some/clip")
    for wrong, told in (
        ("a/b,lenght=3", "nearest: length"),
        ("a/b,length", "valid integer"),
        ("a/b,dropout=1", "less"),
    ):
        with pytest.raises(ValueError, match=told):
            EncoderConfig.model_validate(wrong)
    with pytest.raises(ValueError, match="at least 1 item"):
        FrozenTextConfig(encoders=())


def test_a_run_trains_resumes_and_draws_and_refuses_another_encoder(
    save_encoder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, place = save_encoder(tmp_path / "bert", "bert"), tmp_path / "run"
    command = ["train", "shapes", "--directory", str(place), "--model.conditioner.type", "frozen_text"]
    command += ["--model.conditioner.encoders", f"{folder},length=12,dropout=0.5", "--model.conditioner.width", "16"]
    command += ["--model.backbone.width", "32", "--model.backbone.depth", "1", "--model.backbone.head_width", "16"]
    command += ["--training.steps", "3", "--training.batch", "4", "--training.save_every", "1", "--training.keep", "3"]
    command += ["--training.device", "cpu", "--training.compile", "off", "--model.sampling.steps", "2"]
    assert main(command) == 0
    told = f"text dropped: whole prompts 0.1, and apart from that {folder} 0.5; nothing is read of 55.000%"
    assert told in capsys.readouterr().err.replace("\n", " ")
    checkpoints = place / "checkpoints"

    def tensors(file: str) -> dict[str, torch.Tensor]:
        with safe_open(checkpoints / "step-00000003" / file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118

    for file in ("model.safetensors", "ema.safetensors", "optimizer.safetensors"):
        names = [name for name in tensors(file) if "conditioner" in name]
        assert names and all(name.endswith("conditioner.project.0.weight") for name in names)
    last = tensors("model.safetensors")
    for step in (2, 3):  # as if it had been stopped after the first step
        shutil.rmtree(checkpoints / f"step-0000000{step}")
    assert main(command) == 0
    again = tensors("model.safetensors")
    assert last.keys() == again.keys() and all(torch.equal(value, again[name]) for name, value in last.items())

    model = load(place)
    assert model("a red circle", seed=1)[0].mode == "RGB"
    capsys.readouterr()
    save_encoder(folder, "bert", seed=1)
    assert main(["sample", str(place), "a red circle"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"fromnoise: {folder} holds another text encoder") and told.count("\n") == 1
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "holds another text encoder" in told and "damaged" not in told
