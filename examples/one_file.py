"""A text-to-image model from nothing, in one file: the method of fromnoise, without fromnoise. Read it from the top.

    python examples/one_file.py FOLDER --steps 2000 --out pictures "a red circle" "two blue stars"

FOLDER holds RGB pictures and metadata.jsonl, a line for each: {"file_name": "1.png", "text": "a red circle"}.

A picture x0 and noise eps are the ends of a straight line, x_t = (1 - t) x0 + t eps: time t is 0 at the data and 1 at
the noise, and whoever walks the line has the velocity eps - x0. A network sees x_t, t and the caption, and learns to
say x0; this gives the velocity, (x_t - x0) / t. To draw, start with noise and follow the velocity from t = 1 to 0.

Legend: B batch, L text tokens, S side of a picture, p side of a patch, G = S / p patches along a side, N = G G picture
tokens, D width, H heads, d = D / H head width.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn


def setting(default: float, meaning: str) -> Any:
    return field(default=default, metadata={"help": f"{meaning} (default {default})"})


@dataclass(frozen=True)
class Settings:
    """Each field is a flag of the command line."""

    steps: int = setting(2000, "optimizer steps")
    batch: int = setting(64, "B, pictures a step learns from")
    size: int = setting(32, "S, side that pictures are cropped and scaled to, in pixels; a multiple of the patch")
    patch: int = setting(4, "p, side of a patch, in pixels")
    width: int = setting(192, "D, width of the text encoder and of both streams; a multiple of 4 times the heads")
    heads: int = setting(3, "H, attention heads")
    depth: int = setting(6, "blocks that text and picture meet in")
    text_depth: int = setting(2, "layers of the text encoder")
    vocabulary: int = setting(1024, "most BPE tokens to learn, from 258")
    length: int = setting(32, "most tokens of a caption that are read")
    lr: float = setting(2e-3, "peak learning rate")
    warmup: int = setting(100, "steps over which the learning rate rises")
    clip: float = setting(1.0, "largest norm of the gradient")
    ema: float = setting(0.05, "length of the weight average, as a share of the steps")
    dropout: float = setting(0.1, "share of the captions hidden in training")
    draw_steps: int = setting(28, "steps from noise to picture")
    guidance: float = setting(4.0, "how hard a picture follows its prompt; 1 is as learned")
    seed: int = setting(0, "decides weights, order and noise; picture i is drawn from noise seed + i")


# ---- Data ------------------------------------------------------------------------------------------------------------


def read_folder(folder: Path, size: int) -> tuple[Tensor, list[str]]:
    """All pictures, (count, 3, S, S) uint8, and their captions."""
    with open(folder / "metadata.jsonl", encoding="utf-8") as lines:
        rows = sorted((row["file_name"], row["text"]) for row in map(json.loads, lines))
    pictures = [ImageOps.fit(Image.open(folder / name).convert("RGB"), (size, size)) for name, _ in rows]
    images = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))  # (count, S, S, 3)
    return images.permute(0, 3, 1, 2), [text for _, text in rows]


def rows_of(step: int, count: int, s: Settings) -> np.ndarray:
    """Which pictures a step learns from, (B,): a new shuffle for each pass over them."""
    # Like all chance in training, a function of the seed and the step alone: any step can be repeated by itself.
    first = step * s.batch
    passes = range(first // count, (first + s.batch - 1) // count + 1)
    order = np.concatenate([np.random.default_rng((s.seed, i)).permutation(count) for i in passes])
    return order[first % count :][: s.batch]


def chance_of(step: int, s: Settings) -> torch.Generator:
    # A hash, as seeds that count up would let the next step, or the next seed, draw related numbers.
    digest = hashlib.sha256(f"{s.seed}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


# ---- Text: byte-pair encoding, then a small transformer that is trained along ----------------------------------------

PAD, START = 0, 1


def learn_bpe(captions: list[str], vocabulary: int) -> Tokenizer:
    """A tokenizer that merges, again and again, the pair that is most frequent (Sennrich et al. 2016)."""
    tidy = [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(tidy)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # one token for a word wherever it stands
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=["<pad>", "<start>"],  # tokens PAD and START
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # all 256 bytes, so that any prompt can be written
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.encode_special_tokens = True  # whoever writes "<pad>" means these letters
    return tokenizer


def split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, M, D) -> (B, H, M, d)


class TextLayer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, s: Settings):
        super().__init__()
        self.heads = s.heads
        self.norm1 = nn.LayerNorm(s.width)
        self.qkv = nn.Linear(s.width, 3 * s.width, bias=False)  # softmax would not see a bias of the keys
        self.out = nn.Linear(s.width, s.width)
        self.norm2 = nn.LayerNorm(s.width)
        self.up = nn.Linear(s.width, 4 * s.width)
        self.down = nn.Linear(4 * s.width, s.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, D), mask (B, L) -> (B, L, D)."""
        q, k, v = (split_heads(y, self.heads) for y in self.qkv(self.norm1(x)).chunk(3, -1))  # (B, H, L, d) each
        mixed = F.scaled_dot_product_attention(q, k, v, mask[:, None, None])  # (B, H, L, d)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))  # (B, L, D)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))  # (B, L, D)


class TextEncoder(nn.Module):
    """Captions to tokens that the picture can attend to."""

    def __init__(self, tokenizer: Tokenizer, s: Settings):
        super().__init__()
        self.tokenizer, self.length = tokenizer, s.length
        self.embedding = nn.Embedding(tokenizer.get_vocab_size(), s.width)
        self.position = nn.Parameter(torch.empty(s.length, s.width))
        self.layers = nn.ModuleList(TextLayer(s) for _ in range(s.text_depth))
        self.norm = nn.LayerNorm(s.width)
        self.nothing = nn.Parameter(torch.empty(s.width))  # stands for a caption that is hidden
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.position, std=0.02)
        nn.init.normal_(self.nothing)  # the scale of a token after the norm
        for name, p in self.layers.named_parameters():
            if p.ndim == 2:  # what adds up in the residual starts smaller the more layers there are (GPT-2)
                adds = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * s.text_depth) if adds else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def encode(self, captions: list[str]) -> Tensor:
        """Token numbers (B, L), L the longest caption's."""
        rows = [torch.tensor([START, *self.tokenizer.encode(text).ids][: self.length]) for text in captions]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)

    def forward(self, ids: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, L), keep (B,) False where the caption is hidden -> tokens (B, L, D), mask (B, L) True where real."""
        mask = ids != PAD  # (B, L)
        x = self.embedding(ids) + self.position[: ids.shape[1]]  # (B, L, D)
        for layer in self.layers:
            x = layer(x, mask)  # (B, L, D)
        tokens = torch.where(keep[:, None, None], self.norm(x), self.nothing)  # (B, L, D)
        hidden = torch.arange(ids.shape[1], device=ids.device) == 0  # (L,) of a hidden caption, one token is enough
        return tokens, torch.where(keep[:, None], mask, hidden)


# ---- The network: MMDiT (SD3, Esser et al. 2024), as in Qwen-Image (Wu et al. 2025) ----------------------------------


def time_features(t: Tensor) -> Tensor:
    """Waves of 256 kinds, from fast to slow: t (B,) -> (B, 256)."""
    frequencies = torch.exp(-math.log(10000) * torch.arange(128, device=t.device) / 128)  # (128,)
    angles = 1000 * (t[:, None] * frequencies)  # (B, 128)
    return torch.cat((angles.cos(), angles.sin()), -1)  # (B, 256)


def msrope(length: int, grid: int, head_width: int, device: torch.device) -> Tensor:
    """Where each token stands, as rotations (L + N, d / 2): half of the pairs turn with the row, half with the column.

    The picture's rows and columns are centred on 0. Text goes on along the diagonal outside of it, where row and column
    are the same, so that it never stands on a patch, however large the picture is (Qwen-Image's MSRoPE).
    """
    across = torch.arange(grid) - (grid - grid // 2)  # (G,)
    words = torch.arange(length) + grid // 2  # (L,)
    row = torch.cat((words, across.repeat_interleave(grid)))  # (L + N,)
    column = torch.cat((words, across.repeat(grid)))  # (L + N,)
    frequencies = 10000.0 ** -(torch.arange(0, head_width // 2, 2) / (head_width // 2))  # (d / 4,)
    angles = torch.cat((row[:, None] * frequencies, column[:, None] * frequencies), -1)  # (L + N, d / 2)
    return torch.polar(torch.ones_like(angles), angles).to(device)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn neighbouring pairs of x (B, H, M, d): as complex numbers, they are multiplied by turn (M, d / 2)."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # (B, H, M, d / 2)
    return torch.view_as_real(pairs * turn).flatten(-2)  # (B, H, M, d)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN (DiT, Peebles and Xie 2023): x (B, M, D), normed, then shifted and scaled by what the time says, (B, 1, D)."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift  # (B, M, D)


class Block(nn.Module):
    """Picture and text have weights of their own, and meet in one attention. The last block leaves the text as it is,
    since nothing reads it after that: weights for it would never get a gradient."""

    def __init__(self, s: Settings, last: bool):
        super().__init__()
        D = s.width
        self.heads, self.last = s.heads, last
        self.picture_mod = nn.Linear(D, 6 * D)
        self.text_mod = nn.Linear(D, 2 * D if last else 6 * D)
        self.q, self.k, self.v = (nn.Linear(D, D) for _ in range(3))
        # With queries and keys of one length, no score can grow until softmax sees one token only.
        self.norm_q, self.norm_k = (nn.RMSNorm(D // s.heads, eps=1e-6) for _ in range(2))
        self.out = nn.Linear(D, D)
        self.text_k, self.text_v = (nn.Linear(D, D) for _ in range(2))
        self.norm_text_k = nn.RMSNorm(D // s.heads, eps=1e-6)
        if not last:
            self.text_q, self.text_out = (nn.Linear(D, D) for _ in range(2))
            self.norm_text_q = nn.RMSNorm(D // s.heads, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(approximate="tanh"), nn.Linear(4 * D, D))
        if not last:
            self.text_mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(approximate="tanh"), nn.Linear(4 * D, D))

    def forward(
        self, picture: Tensor, text: Tensor, time: Tensor, mask: Tensor, turn: Tensor
    ) -> tuple[Tensor, Tensor]:
        """picture (B, N, D), text (B, L, D), time (B, D), mask (B, L + N), turn (L + N, d / 2) -> picture, text."""
        length, D = text.shape[1:]
        shift, scale, gate, shift2, scale2, gate2 = self.picture_mod(F.silu(time))[:, None].split(D, -1)  # (B, 1, D)
        text_shift, text_scale, *text_rest = self.text_mod(F.silu(time))[:, None].split(D, -1)  # (B, 1, D) each
        seen, read = modulate(picture, shift, scale), modulate(text, text_shift, text_scale)  # (B, N, D), (B, L, D)

        q = self.norm_q(split_heads(self.q(seen), self.heads))  # (B, H, N, d)
        k = self.norm_k(split_heads(self.k(seen), self.heads))  # (B, H, N, d)
        k = torch.cat((self.norm_text_k(split_heads(self.text_k(read), self.heads)), k), 2)  # (B, H, L + N, d)
        v = split_heads(torch.cat((self.text_v(read), self.v(seen)), 1), self.heads)  # (B, H, L + N, d)
        if not self.last:
            q = torch.cat((self.norm_text_q(split_heads(self.text_q(read), self.heads)), q), 2)  # (B, H, L + N, d)
        q, k = rotate(q, turn[-q.shape[2] :]), rotate(k, turn)
        mixed = F.scaled_dot_product_attention(q, k, v, mask[:, None, None]).transpose(1, 2).flatten(2)  # (B, .., D)

        picture = picture + gate * self.out(mixed[:, -picture.shape[1] :])  # (B, N, D)
        picture = picture + gate2 * self.mlp(modulate(picture, shift2, scale2))  # (B, N, D)
        if not self.last:
            text_gate, text_shift2, text_scale2, text_gate2 = text_rest
            text = text + text_gate * self.text_out(mixed[:, :length])  # (B, L, D)
            text = text + text_gate2 * self.text_mlp(modulate(text, text_shift2, text_scale2))  # (B, L, D)
        return picture, text


class MMDiT(nn.Module):
    """(x_t, t, caption) -> x0."""

    def __init__(self, s: Settings):
        super().__init__()
        D, inside = s.width, 3 * s.patch**2
        self.patch, self.head_width = s.patch, s.width // s.heads
        self.time_mlp = nn.Sequential(nn.Linear(256, D), nn.SiLU(), nn.Linear(D, D))
        self.norm_text = nn.RMSNorm(D, eps=1e-6)
        self.from_patches, self.from_text = nn.Linear(inside, D), nn.Linear(D, D)
        self.blocks = nn.ModuleList(Block(s, last=i == s.depth - 1) for i in range(s.depth))
        self.final_mod = nn.Linear(D, 2 * D)
        self.to_patches = nn.Linear(D, inside)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for name, p in self.named_parameters():
            if name.startswith("time_mlp") and p.ndim == 2:
                nn.init.normal_(p, std=0.02)
            if name.endswith(("_mod.weight", "to_patches.weight")):
                nn.init.zeros_(p)  # adaLN-Zero: all gates are shut at first, so every block starts as the identity

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """x (B, 3, S, S), t (B,), tokens (B, L, D), mask (B, L) -> (B, 3, S, S)."""
        size, grid = x.shape[-1], x.shape[-1] // self.patch
        turn = msrope(tokens.shape[1], grid, self.head_width, x.device)  # (L + N, d / 2)
        mask = F.pad(mask, (0, grid * grid), value=True)  # (B, L + N)
        time = self.time_mlp(time_features(t))  # (B, D)
        picture = self.from_patches(F.unfold(x, self.patch, stride=self.patch).transpose(1, 2))  # (B, N, D)
        text = self.from_text(self.norm_text(tokens))  # (B, L, D)
        for block in self.blocks:
            picture, text = block(picture, text, time, mask, turn)  # (B, N, D), (B, L, D)
        scale, shift = self.final_mod(F.silu(time))[:, None].chunk(2, -1)  # (B, 1, D) each
        patches = self.to_patches(modulate(picture, shift, scale)).transpose(1, 2)  # (B, 3 p p, N)
        return F.fold(patches, (size, size), self.patch, stride=self.patch)  # (B, 3, S, S)


class Model(nn.Module):
    """All that is learned: the text encoder and the network."""

    def __init__(self, captions: list[str], s: Settings):
        super().__init__()
        self.text = TextEncoder(learn_bpe(captions, s.vocabulary), s)
        self.network = MMDiT(s)


# ---- Training --------------------------------------------------------------------------------------------------------


def loss_of(model: Model, x0: Tensor, ids: Tensor, chance: torch.Generator, s: Settings) -> Tensor:
    """The loss of pictures x0 (B, 3, S, S) with captions ids (B, L), at times and with noise drawn by chance."""
    device = x0.device
    t = torch.randn(len(x0), generator=chance).sigmoid().to(device)  # (B,) mostly in the middle, where it is hard (SD3)
    eps = torch.randn(x0.shape, generator=chance).to(device)  # (B, 3, S, S)
    keep = (torch.rand(len(x0), generator=chance) >= s.dropout).to(device)  # (B,) guidance needs both kinds of answer
    x_t = (1 - t)[:, None, None, None] * x0 + t[:, None, None, None] * eps  # (B, 3, S, S)
    error = model.network(x_t, t, *model.text(ids, keep)) - x0  # (B, 3, S, S)
    # The velocity is (x_t - x0) / t: its squared error is that of x0 over t^2, cut off where t < 0.05 (JiT).
    weight = (1 / t**2).clamp(max=400)  # (B,)
    return (weight * error.square().flatten(1).mean(1)).mean()


def train(model: Model, average: Model, images: Tensor, captions: list[str], s: Settings) -> Iterator[float]:
    """Train `model`, and keep the average of its weights in `average`, a copy of it; yields the loss of each step."""
    device = model.text.position.device
    optimizer = torch.optim.AdamW(model.parameters(), s.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    for step in range(s.steps):
        rows = rows_of(step, len(captions), s)  # (B,)
        x0 = images[rows].to(device).float() / 127.5 - 1  # (B, 3, S, S) in [-1, 1]
        ids = model.text.encode([captions[row] for row in rows]).to(device)  # (B, L)
        loss = loss_of(model, x0, ids, chance_of(step, s), s)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        for group in optimizer.param_groups:  # warm-up, then a cosine down to 0
            group["lr"] = s.lr * min(1, (step + 1) / s.warmup) * (1 + math.cos(math.pi * step / s.steps)) / 2
        optimizer.step()
        optimizer.zero_grad()
        # Averaged weights draw better. The first ones are noise, so the average is short at first (Karras et al. 2024).
        decay = min(1 - 1 / max(s.ema * s.steps, 1), (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, p in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(p, 1 - decay)
        yield loss.item()


# ---- Drawing ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def draw(model: Model, prompts: list[str], s: Settings) -> list[Image.Image]:
    """One picture for each prompt: Euler's method along the velocity, with classifier-free guidance."""
    count, device = len(prompts), model.text.position.device
    ids = model.text.encode(prompts * 2).to(device)  # (2 B, L)
    tokens, mask = model.text(ids, torch.arange(2 * count, device=device) < count)  # (2 B, L, D): half of it hidden
    generators = [torch.Generator().manual_seed(s.seed + i) for i in range(count)]
    x = torch.stack([torch.randn(3, s.size, s.size, generator=g) for g in generators]).to(device)  # (B, 3, S, S)
    for t, after in pairwise(torch.linspace(1, 0, s.draw_steps + 1).to(device)):
        told, untold = model.network(torch.cat((x, x)), t.expand(2 * count), tokens, mask).chunk(2)  # (B, 3, S, S) each
        x0 = untold + s.guidance * (told - untold)  # (B, 3, S, S) further from what is drawn without a prompt
        x = x + (after - t) * (x - x0) / t  # (B, 3, S, S)
    pixels = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()  # (B, S, S, 3)
    return [Image.fromarray(picture.numpy()) for picture in pixels]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a text-to-image model on a folder, then draw.")
    parser.add_argument("folder", type=Path, help="pictures and metadata.jsonl, with file_name and text on each line")
    parser.add_argument("prompts", nargs="+", help="what to draw")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="where 0.png, 1.png, ... go (overwritten)")
    for f in fields(Settings):
        parser.add_argument(f"--{f.name}", type=type(f.default), default=f.default, help=f.metadata["help"])
    args = parser.parse_args()
    s = Settings(**{f.name: getattr(args, f.name) for f in fields(Settings)})

    images, captions = read_folder(args.folder, s.size)
    torch.manual_seed(s.seed)
    model = Model(captions, s).to("cuda" if torch.cuda.is_available() else "cpu")
    average = copy.deepcopy(model)
    began = time.perf_counter()
    for step, loss in enumerate(train(model, average, images, captions, s), start=1):
        if step % 20 == 0 or step == s.steps:
            left = (time.perf_counter() - began) / step * (s.steps - step)
            print(f"step {step}/{s.steps}  loss {loss:.4f}  {left:.0f} s left", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(draw(average, args.prompts, s)):
        picture.save(args.out / f"{i}.png")
        print(f"{args.out / f'{i}.png'}: {args.prompts[i]}")


if __name__ == "__main__":
    main()
