"""Where text encoders are found, in folders and on the hub, and what makes their hash."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch

from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig
from fromnoise.conditioning.folder import Encoder, EncoderFault, check, complete, locate
from fromnoise.conditioning.frozen import FrozenEncoder

TEXTS = ["a red circle above a blue square", "", "cat"]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_config_weights_and_tokenizer_make_the_hash_and_nothing_else(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / "moved")
    before = complete(folder).sha256
    assert before == complete(folders["bert"]).sha256 != complete(folders["t5"]).sha256
    (folder / "README.md").write_text("changed")
    assert complete(folder).sha256 == before
    with open(folder / name, "ab") as file:
        file.write(b" ")
    assert complete(folder).sha256 != before


def test_what_is_missing_is_told_and_pickled_weights_are_never_read(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / "bert")
    config = FrozenTextConfig(encoders=(EncoderConfig(path=str(folder)),))
    config.check()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EncoderFault, match=r"no file .*model\.safetensors \(pickled weights are never read\)"):
        config.check()
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(EncoderFault, match="no tokenizer in"):
        config.check()
    (folder / "config.json").unlink()
    with pytest.raises(EncoderFault, match=r"no file .*config\.json"):
        config.check()


def test_a_name_on_the_hub_is_fetched_when_it_is_needed(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        assert {"model.safetensors", "merges.txt"} <= set(allow_patterns)
        assert not any("bin" in one for one in allow_patterns)
        asked.append(f"{name} {revision}")
        if name == "nobody/nothing":
            raise OSError("404:\nnot there")
        return str(folders["t5"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    check("owner/name")
    assert not asked
    assert locate("owner/name") == complete(folders["t5"])
    assert locate("owner/name@refs/pr/3") == complete(folders["t5"])
    assert asked == ["owner/name None", "owner/name refs/pr/3"]
    with pytest.raises(EncoderFault, match=r"no folder at nobody/nothing, and the hub .* \(404: not there\)"):
        locate("nobody/nothing")
    for path in ("your-encoder", "owner/name/elsewhere", "owner/name@"):
        with pytest.raises(EncoderFault, match=f"no folder at {path}; path in"):
            check(path)


def test_diffusers_folders_apart_are_one_encoder_here_and_on_the_hub(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tmp_path / "text_encoder_2", tmp_path / "tokenizer_2"
    together = shutil.copytree(folders["t5"], tmp_path / "t5")
    (together / "merges.txt").write_text("of the tokenizer, and before the model by name")
    shutil.copytree(together, model)
    tokenizer.mkdir()
    for path in [*model.glob("tokenizer*"), model / "merges.txt"]:
        path.rename(tokenizer / path.name)
    whole, apart = (FrozenEncoder(EncoderConfig(path=str(path), length=16)) for path in (together, model))
    assert locate(str(model)) == Encoder(model, tokenizer) and apart.sha256 == whole.sha256
    assert torch.equal(apart.read(TEXTS).tokens, whole.read(TEXTS).tokens)

    def fetch(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        assert {"text_encoder_2/config.json", "tokenizer_2/tokenizer*"} <= set(allow_patterns)
        assert (name, revision) == ("owner/name", "main")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert locate("owner/name/text_encoder_2@main") == Encoder(model, tokenizer)
    shutil.rmtree(tokenizer)
    with pytest.raises(EncoderFault, match=f"no tokenizer in {model}; path in"):
        check(str(model))
