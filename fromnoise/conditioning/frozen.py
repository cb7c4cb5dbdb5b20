"""Frozen text encoders (CLIP, T5, any `AutoModel` with a hidden state) through transformers.

Legend: B batch, T texts, L tokens of the longest, L_i tokens that encoder i reads at most, W_i its width, D width.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig
from fromnoise.conditioning.folder import Encoder, EncoderFault, locate, needs_library
from fromnoise.core.transfer import sent
from fromnoise.core.types import Batch, Cond

TEXTS = 64  # that go through an encoder together
POOLED = "clip_text_model"  # the kind whose pooled output says what a text is about: its last token
LAYERS: dict[str, Callable[[Any], Tensor]] = {
    "last": lambda output: output.last_hidden_state,  # after the encoder's final norm
    "penultimate": lambda output: output.hidden_states[-2],  # as it leaves the last layer but one, without a norm
}


class Encoded(NamedTuple):
    """What a frozen encoder makes of texts, on the CPU, as wide as the longest of them."""

    tokens: Tensor  # (T, L, W_i) float32, zero where masked
    mask: Tensor  # (T, L) bool, True where a token is real
    vector: Tensor  # (T, W_i) pooled

    def widened(self, length: int) -> Encoded:
        """The same with masked tokens appended up to `length`."""
        extra = length - self.mask.shape[1]
        assert extra >= 0, f"cannot pad {self.mask.shape[1]} tokens to {length}"
        return Encoded(F.pad(self.tokens, (0, 0, 0, extra)), F.pad(self.mask, (0, extra)), self.vector)

    @staticmethod
    def joined(parts: Sequence[Encoded]) -> Encoded:
        """All texts of `parts`."""
        length = max(part.mask.shape[1] for part in parts)
        return Encoded(*map(torch.cat, zip(*(part.widened(length) for part in parts), strict=True)))


class FrozenEncoder:
    """The encoder that `config` names: always in evaluation mode, without gradients.

    It is no `nn.Module`, so that nobody takes its weights for ones to train, average or save.

    Raises:
        EncoderFault: one line, when it is not there, cannot be read, or does not read that many tokens.
    """

    def __init__(self, config: EncoderConfig):
        place = locate(config.path)
        self.config = config
        self.tokenizer, self.model = read(place, config.path)
        most = min(self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", math.inf))
        if config.length > most:
            raise EncoderFault(f"length of the encoder {config.path} is {config.length}; allowed: 1 to {most} tokens")
        self.pools = self.model.config.model_type == POOLED
        self.sha256 = place.sha256
        self.lock = threading.Lock()  # a tokenizer keeps its padding as state, and samples are made by threads

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenEncoder:
        return self  # nothing changes it: copies of what holds it read by the same weights

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
        return Encoded.joined(parts)

    @torch.no_grad()
    def _read(self, texts: Sequence[str]) -> Encoded:
        length = self.config.length
        with self.lock:
            batch = self.tokenizer(
                list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
        mask = batch["attention_mask"].bool()  # (T, L_i)
        mask[:, 0] = True  # "" of a tokenizer without special tokens: one token of padding stands for it
        mask = mask | (self.config.padding == "read")  # (T, L_i)
        mask = mask[:, : int(mask.sum(1).max())]  # (T, L)
        device = self.model.device
        output = self.model(
            input_ids=batch["input_ids"][:, : mask.shape[1]].to(device),
            attention_mask=mask.long().to(device),
            output_hidden_states=True,
        )
        real = mask[..., None]  # (T, L, 1)
        tokens = LAYERS[self.config.layer](output).float().cpu() * real  # (T, L, W_i)
        vector = output.pooler_output.float().cpu() if self.pools else tokens.sum(1) / real.sum(1)  # (T, W_i)
        return Encoded(tokens, mask, vector)


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

    def __init__(self, config: FrozenTextConfig, encoders: Sequence[FrozenEncoder] = ()):
        """encoders: those that `config` names, where they have been read."""
        super().__init__()
        self.width = config.width
        # A plain list: none of it is this module's.
        self.encoders = list(encoders) or [FrozenEncoder(one) for one in config.encoders]
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
                    f"{encoder.config.path} holds another text encoder (sha256 {encoder.sha256[:12]}...) than the "
                    f"model was trained with ({trained['sha256'][:12]}...); put the files of that one there again"
                )
        return conditioner

    @property
    def state(self) -> dict[str, str]:
        """What decides the features, to keep beside weights or features: of every encoder sha256, length, layer, and
        padding where that is read (JSON). Its path does not: it may move."""
        told = []
        for one in self.encoders:
            fields = {"length", "layer"} | ({"padding"} if one.config.padding == "read" else set())
            told.append({"sha256": one.sha256} | one.config.model_dump(include=fields))
        return {"encoders": json.dumps(told)}

    def init_weights(self) -> None:
        """Initialise every parameter from torch's default generator.

        | parameter | distribution                                           |
        |-----------|--------------------------------------------------------|
        | project   | N(0, 1 / in): an output has the scale of the encoder's |
        """
        for layer in self.project:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def place(self, device: torch.device) -> None:
        """Move the encoders, which is done with this module where it is moved as a whole."""
        for encoder in self.encoders:
            encoder.model.to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenTextConditioner:
        for encoder in self.encoders:  # they go where this module goes
            encoder.model._apply(fn)
        return super()._apply(fn, recurse)

    def labels(self, prompts: Sequence[str]) -> list[int]:
        """The classes that prompts ask for: texts have none."""
        return [0] * len(prompts)

    def encode(self, captions: Sequence[str], labels: Tensor) -> dict[str, Tensor]:
        """Features of a batch, on the CPU: for every encoder i {"tokens_i": (B, L, W_i), "mask_i": (B, L) bool,
        "vector_i": (B, W_i)}, L up to L_i. Equal captions are encoded once, and "" never."""
        rows = {text: row for row, text in enumerate(dict.fromkeys(["", *captions]))}
        texts = list(rows)[1:]
        index = torch.tensor([rows[caption] for caption in captions])  # (B,)
        features = []
        for encoder, nothing in zip(self.encoders, self.nothing, strict=True):
            every = Encoded.joined([nothing, encoder.read(texts)] if texts else [nothing])
            features.append(Encoded(*(value[index] for value in every)))
        return _named(features)

    def read(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Features of a batch, where they were not encoded beforehand encoded now; to train on, with a `generator`,
        less what is dropped of them beside whole prompts."""
        features = dict(batch.features) or self.encode(batch.captions, batch.labels)
        return features if generator is None else self.dropped(features, generator)

    def dropped(self, features: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """`features` on the CPU, of any L, with "" in place of what each encoder read, row by row by its own chance."""
        left = []
        for i, (encoder, nothing) in enumerate(zip(self.encoders, self.nothing, strict=True)):
            read = _of(features, i)
            nothing = nothing.widened(read.mask.shape[1])  # no text has fewer tokens than ""
            rows = torch.rand(len(read.mask), generator=generator) < encoder.config.dropout  # (B,)
            if not rows.any():  # to copy all that was read would take longer than a step of a GPU
                left.append(read)
                continue
            pairs = zip(nothing, read, strict=True)
            left.append(Encoded(*(torch.where(rows.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs)))
        return _named(left)

    def forward(self, features: dict[str, Tensor]) -> Cond:
        """What `encode` gives, of any L -> Cond of tokens (B, L_1 + L_2 + ..., D), zero where masked, and their pooled
        vector (B, D)."""
        tokens, masks, vectors = [], [], []
        for i, (encoder, project) in enumerate(zip(self.encoders, self.project, strict=True)):
            read = _of(features, i)
            mapped = Encoded(project(read.tokens), read.mask, project(read.vector))  # (B, L, D), (B, L), (B, D)
            mapped = mapped.widened(encoder.config.length)  # (B, L_i, D), (B, L_i): a compiled step sees one shape
            tokens.append(mapped.tokens)
            masks.append(mapped.mask)
            vectors.append(mapped.vector)
        return Cond(torch.cat(tokens, 1), torch.cat(masks, 1), torch.stack(vectors).sum(0))

    def null(self, n: int) -> Cond:
        """Nothing said, `n` times: what the encoders make of "". Cond of (n, L, D)."""
        device = next(self.parameters()).device
        # Not waited for, as every step asks for it: a GPU would have to end all that it was given before.
        one = self({name: sent(value, device) for name, value in _named(self.nothing).items()})
        return Cond(one.tokens.expand(n, -1, -1), one.mask.expand(n, -1), one.vector.expand(n, -1))

    def cut(self, captions: Sequence[str]) -> float:
        """Share of captions longer than some encoder's `length`: it does not read their end."""
        cut = [[n > one.config.length for n in one.lengths(captions)] for one in self.encoders]
        return sum(map(any, zip(*cut, strict=True))) / len(captions)

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


def _named(encoded: Sequence[Encoded]) -> dict[str, Tensor]:
    """What every encoder read, as features."""
    return {f"{name}_{i}": value for i, one in enumerate(encoded) for name, value in one._asdict().items()}


def _of(features: dict[str, Tensor], i: int) -> Encoded:
    """What encoder `i` read."""
    return Encoded(*(features[f"{name}_{i}"] for name in Encoded._fields))


def read(place: Encoder, path: str) -> tuple[Any, Any]:
    """Tokenizer and model of `place`, in float32; of a model of two halves the one that reads.

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
                place.tokenizer, padding_side="right", truncation_side="right", **here
            )
            config = transformers.AutoConfig.from_pretrained(place.model, **here).get_text_config()
            config.use_cache = False  # a decoder's keys and values, for a next word that nobody asks for
            known = type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
            kind = transformers.AutoModelForTextEncoding if known else transformers.AutoModel
            model, found = kind.from_pretrained(
                place.model,
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
    if model.main_input_name != "input_ids":
        raise EncoderFault(f"{path} holds no text encoder: {type(model).__name__} reads {model.main_input_name}")
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
