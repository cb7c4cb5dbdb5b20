"""Frozen text encoders (CLIP, T5, any `AutoModel` with a hidden state) through transformers.

Legend: B batch, T texts, L tokens, L_i tokens read by encoder i, W_i its width, D width.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig
from fromnoise.conditioning.folder import EncoderFault, locate, needs_library, sha256_of
from fromnoise.core.types import Cond

TEXTS = 64  # that go through an encoder together
LAYERS: dict[str, Callable[[Any], Tensor]] = {
    "last": lambda output: output.last_hidden_state,  # after the encoder's final norm
    "penultimate": lambda output: output.hidden_states[-2],  # as it leaves the last layer but one, without a norm
}


class Encoded(NamedTuple):
    """What a frozen encoder makes of texts, on the CPU."""

    tokens: Tensor  # (T, L_i, W_i) float32, zero where masked
    mask: Tensor  # (T, L_i) bool, True where a token is real
    vector: Tensor  # (T, W_i) pooled


class FrozenEncoder:
    """The encoder that `config` names: always in evaluation mode, without gradients.

    It is no `nn.Module`, so that nobody takes its weights for ones to train, average or save.

    Raises:
        EncoderFault: one line, when it is not there, cannot be read, or does not read that many tokens.
    """

    def __init__(self, config: EncoderConfig):
        folder = locate(config.path)
        self.config = config
        self.tokenizer, self.model = read(folder, config.path)
        most = min(self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", math.inf))
        if config.length > most:
            raise EncoderFault(f"length of the encoder {config.path} is {config.length}; allowed: 1 to {most} tokens")
        # BERT's pooled output has weights of its own, for whether a sentence follows another: its tokens' mean says
        # more. CLIP's is its last token.
        self.pools = not any(name.startswith("pooler.") for name, _ in self.model.named_parameters())
        self.sha256 = sha256_of(folder)
        self.lock = threading.Lock()  # a tokenizer keeps its padding as state, and samples are made by threads

    @property
    def width(self) -> int:
        """W_i."""
        return self.model.config.hidden_size

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before any cut, special ones included."""
        with self.lock:
            return [len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]]

    def read(self, texts: Sequence[str]) -> Encoded:
        """What it makes of T texts, T at least 1."""
        parts = [self._read(texts[i : i + TEXTS]) for i in range(0, len(texts), TEXTS)]
        return Encoded(*map(torch.cat, zip(*parts, strict=True)))

    @torch.no_grad()
    def _read(self, texts: Sequence[str]) -> Encoded:
        length = self.config.length
        with self.lock:
            batch = self.tokenizer(
                list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
        mask = batch["attention_mask"].bool()  # (T, L_i)
        mask[:, 0] = True  # "" of a tokenizer without special tokens: one token of padding stands for it
        longest = int(mask.sum(1).max())  # the rest of the padding is not computed
        device = self.model.device
        output = self.model(
            input_ids=batch["input_ids"][:, :longest].to(device),
            attention_mask=mask[:, :longest].long().to(device),
            output_hidden_states=True,
        )
        real = mask[:, :longest, None]  # (T, l, 1)
        tokens = LAYERS[self.config.layer](output).float().cpu() * real  # (T, l, W_i)
        pooled = output.get("pooler_output") if self.pools else None
        vector = tokens.sum(1) / real.sum(1) if pooled is None else pooled.float().cpu()  # (T, W_i)
        return Encoded(nn.functional.pad(tokens, (0, 0, 0, length - longest)), mask, vector)


class FrozenTextConditioner(nn.Module):
    """Reads captions by one or more frozen encoders; what is trained is a linear map of each one's width to D.

    The tokens of all encoders stand in one sequence of L = L_1 + L_2 + ..., masked where they are padding. The vector
    is the sum of their pooled outputs (CLIP's, else the mean of the real tokens) by the same maps: a linear map of all
    pooled outputs side by side, whose weights get a gradient from a backbone that reads tokens or vector alone.

    Nothing said is what the encoders make of "": the same numbers where a prompt is dropped in training, where a
    picture is drawn, and where a user says "".

    Raises:
        EncoderFault: as `FrozenEncoder`.
    """

    def __init__(self, config: FrozenTextConfig):
        super().__init__()
        self.width = config.width
        self.encoders = [FrozenEncoder(one) for one in config.encoders]  # a plain list: none of it is this module's
        self.nothing = [encoder.read([""]) for encoder in self.encoders]
        self.project = nn.ModuleList(nn.Linear(one.width, config.width, bias=False) for one in self.encoders)
        self.init_weights()

    @classmethod
    def restore(cls, config: FrozenTextConfig, state: dict[str, str]) -> FrozenTextConditioner:
        """The conditioner that `state` was taken from, with fresh weights: they are loaded afterwards.

        Raises:
            EncoderFault: one line, when an encoder is missing, or is another one.
        """
        conditioner = cls(config)
        for encoder, trained in zip(conditioner.encoders, json.loads(state["encoders"]), strict=True):
            if encoder.sha256 != trained["sha256"]:
                raise EncoderFault(
                    f"{trained['path']} holds another text encoder (sha256 {encoder.sha256[:12]}...) than the model "
                    f"was trained with ({trained['sha256'][:12]}...); put the files of that one there again"
                )
        return conditioner

    @property
    def state(self) -> dict[str, str]:
        """Text to keep in a checkpoint beside the weights: path and sha256 of every encoder (JSON)."""
        return {"encoders": json.dumps([{"path": one.config.path, "sha256": one.sha256} for one in self.encoders])}

    def init_weights(self) -> None:
        """Initialise every parameter from torch's default generator.

        | parameter | distribution                                           |
        |-----------|--------------------------------------------------------|
        | project   | N(0, 1 / in): an output has the scale of the encoder's |
        """
        for layer in self.project:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenTextConditioner:
        for encoder in self.encoders:  # they go where this module goes
            encoder.model._apply(fn)
        return super()._apply(fn, recurse)

    def labels(self, prompts: Sequence[str]) -> list[int]:
        """The classes that prompts ask for: texts have none."""
        return [0] * len(prompts)

    def encode(self, captions: Sequence[str], labels: Tensor) -> dict[str, Tensor]:
        """Features of a batch, on the CPU: for every encoder i {"tokens_i": (B, L_i, W_i), "mask_i": (B, L_i) bool,
        "vector_i": (B, W_i)}. Equal captions are encoded once, and "" never."""
        rows = {text: row for row, text in enumerate(dict.fromkeys(["", *captions]))}
        texts = list(rows)[1:]
        index = torch.tensor([rows[caption] for caption in captions])  # (B,)
        features = {}
        for i, (encoder, nothing) in enumerate(zip(self.encoders, self.nothing, strict=True)):
            parts = [nothing, encoder.read(texts)] if texts else [nothing]
            for name, values in zip(Encoded._fields, zip(*parts, strict=True), strict=True):
                features[f"{name}_{i}"] = torch.cat(values)[index]
        return features

    def dropped(self, features: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """`features` on the CPU with "" in place of what each encoder read, by its own chance, row by row."""
        left = dict(features)
        for i, (encoder, nothing) in enumerate(zip(self.encoders, self.nothing, strict=True)):
            size = len(features[f"mask_{i}"])
            drop = torch.rand(size, generator=generator) < encoder.config.dropout  # (B,)
            for name, value in zip(Encoded._fields, nothing, strict=True):
                key = f"{name}_{i}"
                left[key] = torch.where(drop.reshape(-1, *[1] * (value.ndim - 1)), value, features[key])
        return left

    def forward(self, features: dict[str, Tensor]) -> Cond:
        """What `encode` gives -> Cond of tokens (B, L, D), zero where masked, and their pooled vector (B, D)."""
        every = range(len(self.encoders))
        tokens = [self.project[i](features[f"tokens_{i}"]) for i in every]  # (B, L_i, D) each
        vectors = [self.project[i](features[f"vector_{i}"]) for i in every]  # (B, D) each
        mask = torch.cat([features[f"mask_{i}"] for i in every], 1)  # (B, L)
        return Cond(torch.cat(tokens, 1), mask, torch.stack(vectors).sum(0))

    def null(self, n: int) -> Cond:
        """Nothing said, `n` times: what the encoders make of "". Cond of (n, L, D)."""
        device = next(self.parameters()).device
        features = {
            f"{name}_{i}": value.to(device)
            for i, nothing in enumerate(self.nothing)
            for name, value in zip(Encoded._fields, nothing, strict=True)
        }
        one = self(features)
        return Cond(one.tokens.expand(n, -1, -1), one.mask.expand(n, -1), one.vector.expand(n, -1))

    def cut(self, captions: Sequence[str]) -> float:
        """Share of captions longer than some encoder's `length`: it does not read their end."""
        lengths = [encoder.lengths(captions) for encoder in self.encoders]
        most = [encoder.config.length for encoder in self.encoders]
        return sum(any(n > m for n, m in zip(row, most, strict=True)) for row in zip(*lengths, strict=True)) / len(
            captions
        )

    def notice(self, captions: Sequence[str]) -> str:
        """One line to tell whoever wrote these texts: how many each encoder cuts. "" if none does."""
        return "; ".join(filter(None, (self._notice(encoder, captions) for encoder in self.encoders)))

    def _notice(self, encoder: FrozenEncoder, captions: Sequence[str]) -> str:
        lengths, most = encoder.lengths(captions), encoder.config.length
        long = [n for n in lengths if n > most]
        if not long:
            return ""
        worst = max(long)
        return (
            f"{len(long)} of {len(captions)} texts longer than the {most} tokens that {encoder.config.path} reads are "
            f"cut: the longest loses {1 - most / worst:.0%} ({captions[lengths.index(worst)][:40]!r}...)"
        )


def read(folder: Path, path: str) -> tuple[Any, Any]:
    """Tokenizer and model in `folder`, in float32; of a model of two halves the one that reads.

    Raises:
        EncoderFault: one line that names `path`, when transformers is missing, or cannot read them.
    """
    try:
        import transformers
    except ImportError:
        raise EncoderFault(needs_library(path)) from None
    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, padding_side="right", truncation_side="right", **here
            )
            config = transformers.AutoConfig.from_pretrained(folder, **here).get_text_config()
            known = type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
            kind = transformers.AutoModelForTextEncoding if known else transformers.AutoModel
            model, found = kind.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **here,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise EncoderFault(f"cannot read the text encoder {path}: {' '.join(str(error).split())[:300]}") from None
    missing = sorted(name for name in found["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise EncoderFault(f"the text encoder {path} lacks {len(missing)} weights of {kind.__name__}: {missing[0]}...")
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise EncoderFault(f"the tokenizer of {path} has no token to pad with, and none that ends a text")
        tokenizer.pad_token = tokenizer.eos_token
    model = model if known or not config.is_encoder_decoder else model.get_encoder()
    return tokenizer, model.eval().requires_grad_(False)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers shows no progress and no report on weights."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
