"""A text encoder trained along with the backbone: BPE learned from the captions, then a small transformer.

Legend: B batch, L tokens, D width, H heads, E = D / H width of a head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from fromnoise.conditioning.config import TextConfig
from fromnoise.core.types import Batch, Cond
from fromnoise.nn.attention import attention, bias_of

PAD, START = 0, 1
SPECIAL = ("<pad>", "<start>")


def learn_bpe(captions: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016; GPT-2's bytes and word splitting) of at most `vocabulary` tokens.

    Case, runs of white space and Unicode width do not matter: "a  Red circle" reads like "a red circle". Merges never
    cross a word, so a pair of words that was never seen together is read from words that were. Every text can be
    written: 256 tokens are the bytes. The result depends on the captions only, not on their order.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    # With a space before the first word, too, a word is the same token wherever it stands.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    start = SPECIAL[START]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{start} $A", special_tokens=[(start, START)])
    return tokenizer


class Layer(nn.Module):
    """A pre-norm transformer layer: attention among all real tokens, then a feed-forward of four times the width."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        # No bias: softmax does not see a bias of the keys, so it would never get a gradient.
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, D), mask (B, L) True where a token is real -> (B, L, D)."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))  # (B, L, 3, H, E)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 of (B, H, L, E)
        y = attention(q, k, v, bias_of(mask))  # (B, H, L, E)
        x = x + self.out(y.transpose(1, 2).flatten(2))  # (B, L, D)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))  # (B, L, D)


def understood(encoder: Any, ids: Tensor, mask: Tensor) -> Cond:
    """ids (B, L), mask (B, L) -> Cond of tokens (B, L, D), zero where masked; vector is their mean.

    encoder: a `TextConditioner`, or what an exported folder carries of it.
    """
    x = encoder.embedding(ids) + encoder.position[: ids.shape[1]]  # (B, L, D)
    for layer in encoder.layers:
        x = layer(x, mask)  # (B, L, D)
    real = mask[..., None]  # (B, L, 1)
    tokens = encoder.norm(x) * real  # (B, L, D)
    return Cond(tokens, mask, tokens.sum(1) / real.sum(1))


class TextConditioner(nn.Module):
    """Reads captions. Make one with `learn`, from captions, or with `restore`, from a checkpoint.

    Bidirectional pre-norm transformer on byte-level BPE; padding is never attended to.

    `length` is the static width L of its features: that of the longest caption learned from, so that a compiled step
    never meets another. A longer prompt is still read, up to `config.length` tokens (its features are then wider).
    The start token counts as one: "" has a token, too.
    """

    def __init__(self, config: TextConfig, tokenizer: Tokenizer, length: int):
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"heads {config.heads} does not divide the text encoder's width {config.width}")
        self.width = config.width
        self.most = config.length
        self.length = length
        self.tokenizer = tokenizer
        # A prompt that spells "<pad>" is text like any other.
        self.tokenizer.encode_special_tokens = True
        self.embedding = nn.Embedding(tokenizer.get_vocab_size(), config.width)
        self.position = nn.Parameter(torch.empty(config.length, config.width))
        self.layers = nn.ModuleList(Layer(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.nothing = nn.Parameter(torch.empty(config.width))
        self.init_weights()

    @classmethod
    def learn(cls, config: TextConfig, captions: Iterable[str]) -> TextConditioner:
        """A fresh encoder: BPE and length from `captions`, weights from torch's default generator.

        Raises:
            ValueError: `config.heads` does not divide `config.width`.
        """
        captions = list(captions)
        tokenizer = learn_bpe(captions, config.vocabulary)
        longest = max((len(encoding.ids) for encoding in tokenizer.encode_batch_fast(captions)), default=1)
        return cls(config, tokenizer, min(4 * math.ceil(longest / 4), config.length))

    @classmethod
    def restore(cls, config: TextConfig, state: dict[str, str]) -> TextConditioner:
        """The encoder that `state` was taken from, with fresh weights: they are loaded afterwards."""
        return cls(config, Tokenizer.from_str(state["tokenizer"]), int(state["length"]))

    @property
    def state(self) -> dict[str, str]:
        """Text to keep in a checkpoint beside the weights: the tokenizer (JSON) and the length L."""
        return {"tokenizer": self.tokenizer.to_str(), "length": str(self.length)}

    def init_weights(self) -> None:
        """Initialise every parameter from torch's default generator, so that every layer's output has the scale of
        its input.

        GPT-2's 0.02 would leave a narrow encoder nearly linear, and its words unmixed: which word belongs to which is
        then learned much later.

        | parameter                    | distribution          |
        |------------------------------|-----------------------|
        | embedding, position, nothing | N(0, 1)               |
        | norms                        | weight 1, bias 0      |
        | qkv, out, up, down           | N(0, 1 / in), bias 0  |
        """
        for parameter in (self.embedding.weight, self.position, self.nothing):
            nn.init.normal_(parameter)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def labels(self, prompts: Sequence[str]) -> list[int]:
        """The classes that prompts ask for: texts have none."""
        return [0] * len(prompts)

    def encode(self, captions: Sequence[str], labels: Tensor) -> dict[str, Tensor]:
        """Features of a batch, on the CPU: {"ids": (B, L) int64, "mask": (B, L) bool}.

        L is `length`, or `config.length` where a caption needs more; what is longer still is cut (see `notice`).
        """
        rows = [encoding.ids[: self.most] for encoding in self.tokenizer.encode_batch_fast(captions)]
        width = self.length if max(map(len, rows)) <= self.length else self.most
        ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])  # (B, L)
        return {"ids": ids, "mask": ids != PAD}

    def read(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Features of a batch to train on, less what is dropped of them beside whole prompts: nothing is."""
        return self.encode(batch.captions, batch.labels)

    def forward(self, features: dict[str, Tensor]) -> Cond:
        """{"ids": (B, L), "mask": (B, L)} -> Cond of tokens (B, L, D), zero where masked; vector is their mean."""
        return understood(self, features["ids"], features["mask"])  # (B, L, D), (B, L), (B, D)

    def null(self, n: int) -> Cond:
        """Nothing said, `n` times: one learned token, padded to L. Cond of (n, L, D)."""
        return Cond.of(self.nothing.expand(n, -1)).padded(self.length)

    def lengths(self, captions: Sequence[str]) -> list[int]:
        """Tokens of each caption before any cut, the start token included."""
        return [len(encoding.ids) for encoding in self.tokenizer.encode_batch_fast(captions)]

    def cut(self, captions: Sequence[str]) -> float:
        """Share of captions longer than `config.length` tokens: their end is not read."""
        return sum(n > self.most for n in self.lengths(captions)) / len(captions)

    def notice(self, captions: Sequence[str]) -> str:
        """One line to tell whoever wrote these texts: how many are cut, and how much of the longest. "" if none is."""
        lengths = self.lengths(captions)
        long = [n for n in lengths if n > self.most]
        if not long:
            return ""
        worst = max(long)
        return (
            f"{len(long)} of {len(captions)} texts longer than the {self.most} tokens that the model reads are cut: "
            f"the longest loses {1 - self.most / worst:.0%} ({captions[lengths.index(worst)][:40]!r}...)"
        )
