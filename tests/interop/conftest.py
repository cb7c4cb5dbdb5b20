"""Tiny pipelines of every kind, whose weights are far from where they start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fromnoise.conditioning.config import ConditionerConfig, LabelConfig, TextConfig
from fromnoise.models.config import BackboneConfig, CrossDiTConfig, DiTConfig, MMDiTConfig, UNetConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from tests.conftest import stirred

CAPTIONS = ["a red circle", "a small blue square above a large green star", "two yellow rings"]
BACKBONES: dict[str, BackboneConfig] = {
    "unet": UNetConfig(width=8, multipliers=(1, 2), layers=1, attention=(1,), heads=2, groups=4),
    "dit": DiTConfig(patch=2, width=16, depth=2, head_width=8),
    "crossdit": CrossDiTConfig(patch=2, width=16, depth=2, head_width=8),
    "sd3": MMDiTConfig(
        patch=2,
        width=16,
        depth=2,
        head_width=8,
        pooled=True,
        rotation="none",
        absolute="cropped",
        grid=4,
        largest=8,
        text_norm=False,
    ),
    "qwen": MMDiTConfig(patch=2, width=16, depth=2, head_width=8),
    "own": MMDiTConfig(
        patch=2,
        width=16,
        depth=2,
        head_width=8,
        pooled=True,
        modulation="shared",
        absolute="sincos",
        rope_theta=1000.0,
    ),
}
TEXT = TextConfig(vocabulary=300, length=16, width=16, depth=1, heads=2)
CLASSES = LabelConfig(classes=4, width=16)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No network, nothing written outside of the test's own folders, and a quiet diffusers."""
    from diffusers.utils import dynamic_modules_utils, logging

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def build(backbone: str | BackboneConfig, conditioner: ConditionerConfig = TEXT, **fields: Any) -> Pipeline:
    """A tiny pipeline of 8 x 8 pixels, or what is given."""
    config = ModelConfig(
        backbone=BACKBONES[backbone] if isinstance(backbone, str) else backbone,
        conditioner=conditioner,
        **{"size": 8, "sampling": Sampling(steps=4, guidance=2.0)} | fields,
    )
    return stirred(Pipeline.build(config, CAPTIONS, 0).eval(), 0.1)


@pytest.fixture(scope="session")
def save_clip() -> Callable[[Path], Path]:
    """`save_clip(folder)`: a tiny CLIP text encoder beside its tokenizer, as diffusers keeps them."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    from fromnoise.conditioning.frozen import quiet

    def save(folder: Path) -> Path:
        words = ["<start>", "<end>", *"a red circle small blue square above large green star two yellow rings".split()]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<end>"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
        )
        config = transformers.CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=12,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=10,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(0)
            transformers.CLIPTextModel(config).save_pretrained(folder / "text_encoder")
            fast = transformers.PreTrainedTokenizerFast(
                tokenizer_object=tokenizer,
                bos_token="<start>",
                eos_token="<end>",
                pad_token="<end>",
                unk_token="<end>",
                model_max_length=10,
            )
            fast.save_pretrained(folder / "tokenizer")
        return folder / "text_encoder"

    return save
