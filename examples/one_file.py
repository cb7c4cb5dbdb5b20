"""A text-to-image model from nothing: all of fromnoise's method, and none of its code. Read it from top to bottom.

    python examples/one_file.py FOLDER --steps 2000 --out pictures "a red circle" "two blue stars"

FOLDER holds RGB pictures and metadata.jsonl, a line for each of them: {"file_name": "1.png", "text": "a red circle"}.
A straight line, x_t = (1 - t) x0 + t eps, leads from a picture x0 to noise eps. A network sees x_t, t and the caption,
and learns to say x0, which gives the velocity along the line: eps - x0 = (x_t - x0) / t. To draw, start from noise and
follow the velocity from t = 1 to 0.
Legend: B batch, L text tokens, N picture tokens, M of either, d = D / H width of a head; S, P, D, H as below.
"""

import copy
import hashlib
import json
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, complex, nn, view_as_real

S, P = 32, 4  # side of a picture, and of the patches that are its tokens, in pixels
D, H, DEPTH, TEXT_DEPTH = 192, 3, 6, 2  # width, heads, blocks in which text and picture meet, layers that read the text
SPECIAL, VOCABULARY, LENGTH = ["<pad>", "<start>"], 1024, 32  # tokens 0 and 1, most tokens to learn, and of a caption
LR, WARMUP, CLIP = 2e-3, 100, 1.0  # peak learning rate, steps in which it rises, largest norm of a gradient
EMA, DROPOUT = 0.05, 0.1  # length of the weight average, as a share of the steps; share of captions hidden in training
DRAW_STEPS, GUIDANCE = 28, 4.0  # steps from noise to picture; how hard it follows the prompt, where 1 is as learned
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def read_folder(folder: Path) -> tuple[Tensor, list[str]]:
    """All pictures, (count, 3, S, S) in 8 bits, and their captions."""
    with open(folder / "metadata.jsonl", encoding="utf-8") as lines:
        rows = sorted((row["file_name"], row["text"]) for row in map(json.loads, lines))
    images = (Image.open(folder / name).convert("RGB") for name, _ in rows)
    cut = (np.array(ImageOps.fit(i, (min(i.size), min(i.size)), Image.Resampling.NEAREST)) for i in images)  # centres
    resize = partial(F.interpolate, size=(S, S), mode="lanczos", antialias=True)  # Lanczos came with torch 2.12
    return torch.cat([resize(torch.from_numpy(a).permute(2, 0, 1)[None]) for a in cut]), [text for _, text in rows]


def learn_bpe(captions: list[str]) -> Tokenizer:
    """Byte-pair encoding: from single bytes, join the most frequent pair again and again (Sennrich et al. 2016)."""
    tidy = [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(tidy)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()  # by words; each with a space before it, the first one too
    bpe = trainers.BpeTrainer(vocab_size=VOCABULARY, min_frequency=2, special_tokens=SPECIAL, show_progress=False)
    bpe.initial_alphabet = pre_tokenizers.ByteLevel.alphabet()  # all 256 bytes, so that any prompt can be written
    tokenizer.train_from_iterator(captions, bpe)
    return tokenizer


# Captions to tokens that the picture attends to: a usual pre-norm transformer, trained along with the rest.
class TextEncoder(nn.Module):
    def __init__(self, captions: list[str]):
        super().__init__()
        self.tokenizer, gelu = learn_bpe(captions), partial(F.gelu, approximate="tanh")
        self.embedding, self.norm = nn.Embedding(self.tokenizer.get_vocab_size(), D), nn.LayerNorm(D)
        self.position, self.nothing = nn.Parameter(torch.empty(LENGTH, D)), nn.Parameter(torch.empty(D))
        layer = partial(nn.TransformerEncoderLayer, D, H, 4 * D, 0.0, gelu, batch_first=True, norm_first=True)
        self.layers = nn.ModuleList(layer() for _ in range(TEXT_DEPTH))
        for p in (self.embedding.weight, self.position, self.nothing):
            nn.init.normal_(p)
        for name, p in self.layers.named_parameters():
            if p.ndim == 2:  # what comes out of a layer has the scale of what goes in
                nn.init.normal_(p, std=p.shape[1] ** -0.5)
            elif "bias" in name:  # that of queries, keys and values stays 0: softmax does not even see that of keys
                nn.init.zeros_(p).requires_grad_("in_proj" not in name)

    def encode(self, captions: list[str]) -> Tensor:
        """The numbers of the captions' tokens, (B, L)."""
        rows = [torch.tensor([1, *self.tokenizer.encode(caption).ids][:LENGTH]) for caption in captions]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True).to(DEVICE)  # (B, L), 0 where short

    def forward(self, ids: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, L), keep (B,) False where the caption is hidden -> tokens (B, L, D), mask (B, L) True where real."""
        x, mask = self.embedding(ids) + self.position[: ids.shape[1]], ids != 0  # (B, L, D), (B, L)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)  # (B, L, D)
        mask[:, 1:] &= keep[:, None]  # to say nothing, one token is enough
        return torch.where(keep[:, None, None], self.norm(x), self.nothing), mask


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN (DiT, Peebles and Xie 2023): x (B, M, D) normed, then shifted and scaled as the time asks, by (B, 1, D)."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift  # (B, M, D)


def msrope(length: int, grid: int) -> Tensor:
    """Where tokens stand, as rotations (L + N, d / 2) of queries and keys: half by row, half by column (Qwen-Image)."""
    across = torch.arange(grid) - (grid - grid // 2)  # (grid,) the picture's rows, or columns, around its centre
    words = torch.arange(length) + grid // 2  # (L,) both row and column: on the diagonal, outside of the picture
    rows, columns = torch.cat((words, across.repeat_interleave(grid))), torch.cat((words, across.repeat(grid)))
    speeds = 10000.0 ** -(torch.arange(0, D // H // 2, 2) / (D // H // 2))  # (d / 4,)
    angles = torch.cat((rows[:, None] * speeds, columns[:, None] * speeds), -1)  # (L + N, d / 2)
    return torch.polar(torch.ones_like(angles), angles).to(DEVICE)  # (L + N, d / 2) complex numbers of length 1


# Text and picture, with weights of their own, meet in one attention. The last block leaves the text as it is.
class Block(nn.Module):
    def __init__(self, last: bool):
        super().__init__()
        self.last, self.mod, self.text_mod = last, nn.Linear(D, 6 * D), nn.Linear(D, 2 * D if last else 6 * D)
        self.q, self.k, self.v, self.out, self.text_k, self.text_v = (nn.Linear(D, D) for _ in range(6))
        # Normed queries and keys: no score can grow so large that softmax sees one token alone.
        self.norm_q, self.norm_k, self.norm_text_k = (nn.RMSNorm(D // H, eps=1e-6) for _ in range(3))
        if not last:
            self.text_q, self.text_out = nn.Linear(D, D), nn.Linear(D, D)
            self.norm_text_q = nn.RMSNorm(D // H, eps=1e-6)
        mlps = [nn.Sequential(nn.Linear(D, 4 * D), nn.GELU("tanh"), nn.Linear(4 * D, D)) for _ in range(2 - last)]
        self.mlps = nn.ModuleList(mlps)  # of the picture, and of the text

    def forward(self, x: Tensor, text: Tensor, time: Tensor, mask: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, N, D), text (B, L, D), time (B, 1, D), mask (B, L + N), turn (L + N, d / 2) -> x, text."""
        shift, scale, gate, shift2, scale2, gate2 = self.mod(time).chunk(6, -1)  # (B, 1, D) each
        text_shift, text_scale, *text_mod = self.text_mod(time).split(D, -1)  # (B, 1, D) each
        seen, read = modulate(x, shift, scale), modulate(text, text_shift, text_scale)  # (B, N, D), (B, L, D)
        q, k, v = (f(seen).unflatten(-1, (H, -1)) for f in (self.q, self.k, self.v))  # (B, N, H, d) each
        text_k, text_v = (f(read).unflatten(-1, (H, -1)) for f in (self.text_k, self.text_v))  # (B, L, H, d) each
        q, k, v = self.norm_q(q), torch.cat((self.norm_text_k(text_k), self.norm_k(k)), 1), torch.cat((text_v, v), 1)
        if not self.last:  # q, k and v are (B, L + N, H, d), but of the last block's text, nobody asks for an answer
            q = torch.cat((self.norm_text_q(self.text_q(read).unflatten(-1, (H, -1))), q), 1)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))  # (B, H, M, d)
        # Numbers i and i + d / 2 are a point of the plane: a complex number, which turns when it is multiplied.
        q, k = (view_as_real(complex(*y.chunk(2, -1)) * turn[-y.shape[2] :]).mT.flatten(3) for y in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v, mask[:, None, None]).transpose(1, 2).flatten(2)  # (B, M, D)
        x = x + gate * self.out(mixed[:, -x.shape[1] :])  # (B, N, D)
        x = x + gate2 * self.mlps[0](modulate(x, shift2, scale2))  # (B, N, D)
        if not self.last:
            text_gate, text_shift2, text_scale2, text_gate2 = text_mod
            text = text + text_gate * self.text_out(mixed[:, : text.shape[1]])  # (B, L, D)
            text = text + text_gate2 * self.mlps[1](modulate(text, text_shift2, text_scale2))  # (B, L, D)
        return x, text


# (x_t, t, text) -> x0: the dual-stream transformer of SD3 (Esser et al. 2024) and Qwen-Image (Wu et al. 2025).
class MMDiT(nn.Module):
    def __init__(self, text: TextEncoder):
        super().__init__()
        self.time_in, self.time_out, self.norm_text = nn.Linear(256, D), nn.Linear(D, D), nn.RMSNorm(D, eps=1e-6)
        self.from_patches, self.from_text = nn.Linear(3 * P**2, D), nn.Linear(D, D)
        self.blocks = nn.ModuleList(Block(last=i == DEPTH - 1) for i in range(DEPTH))
        self.mod, self.to_patches = nn.Linear(D, 2 * D), nn.Linear(D, 3 * P**2)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.xavier_uniform_(p)
            if name.endswith(("mod.weight", "to_patches.weight", "bias")):
                nn.init.zeros_(p)  # adaLN-Zero: all gates are shut, so a block does nothing at first
        for linear in (self.time_in, self.time_out):
            nn.init.normal_(linear.weight, std=0.02)
        self.text = text

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """x (B, 3, S, S), t (B,), tokens (B, L, D), mask (B, L) -> (B, 3, S, S)."""
        speeds = torch.exp(-math.log(10000) * torch.arange(128, device=DEVICE) / 128)  # (128,) of waves, fast to slow
        angles = 1000 * (t[:, None] * speeds)  # (B, 128)
        time = self.time_out(F.silu(self.time_in(torch.cat((angles.cos(), angles.sin()), -1))))  # (B, D)
        time, turn = F.silu(time)[:, None], msrope(tokens.shape[1], S // P)  # (B, 1, D), (L + N, d / 2)
        mask = F.pad(mask, (0, (S // P) ** 2), value=True)  # (B, L + N)
        x, text = self.from_patches(F.unfold(x, P, stride=P).mT), self.from_text(self.norm_text(tokens))  # (B, M, D)
        for block in self.blocks:
            x, text = block(x, text, time, mask, turn)  # (B, N, D), (B, L, D)
        scale, shift = self.mod(time).chunk(2, -1)  # (B, 1, D) each
        return F.fold(self.to_patches(modulate(x, shift, scale)).mT, (S, S), P, stride=P)  # (B, 3, S, S)


def train(model: MMDiT, average: MMDiT, images: Tensor, captions: list[str], args: Namespace) -> Iterator[float]:
    """Train `model`, and average its weights in its copy, `average`; yields the loss of each step."""
    steps, batch, passes = args.steps, args.batch, range(args.steps * args.batch // len(captions) + 1)
    order = np.concatenate([np.random.default_rng((args.seed, i)).permutation(len(captions)) for i in passes])
    optimizer = torch.optim.AdamW(model.parameters(), LR, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    for step in range(steps):
        rows = order[step * batch :][:batch]  # (B,)
        x0 = images[rows].float() / 127.5 - 1  # (B, 3, S, S) from -1 to 1
        # All chance in a step hangs on the seed and its number alone, so that any step can be done again.
        digest = hashlib.sha256(f"{args.seed}/{step}".encode()).digest()
        chance = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        parts = (torch.arange(batch) + torch.rand(batch, generator=chance)) / batch  # (B,) one in each part of 0 to 1
        t = torch.special.ndtri(parts).sigmoid()  # (B,) most often in the middle, where most is decided (SD3)
        eps = torch.randn(x0.shape, generator=chance)  # (B, 3, S, S)
        keep = torch.rand(batch, generator=chance) >= DROPOUT  # (B,) guidance asks what is drawn without a caption, too
        x_t = (1 - t)[:, None, None, None] * x0 + t[:, None, None, None] * eps  # (B, 3, S, S)
        # The velocity, (x_t - x0) / t, has the error of x0 over t; t counts as 0.05 or more (JiT, Li and He 2025).
        weight = (1 / t**2).clamp(max=400)  # (B,)
        x0, x_t, t, keep, weight = (drawn.to(DEVICE) for drawn in (x0, x_t, t, keep, weight))
        tokens, mask = model.text(model.text.encode([captions[row] for row in rows]), keep)  # (B, L, D), (B, L)
        loss = (weight * (model(x_t, t, tokens, mask) - x0).square().flatten(1).mean(1)).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.param_groups[0]["lr"] = LR * min(1, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.step()
        optimizer.zero_grad()
        # The average draws better. It is short at first, to forget the first weights, which are noise.
        decay = min(1 - 1 / max(EMA * steps, 1), (1 + step) / (10 + step))
        for mean, p in zip(average.parameters(), model.parameters(), strict=True):
            mean.detach().lerp_(p.detach(), 1 - decay)
        yield loss.item()


@torch.no_grad()
def draw(model: MMDiT, prompts: list[str], seed: int) -> list[Image.Image]:
    """A picture of each prompt, by Euler's method with classifier-free guidance (Ho and Salimans 2022)."""
    shown = torch.arange(2 * len(prompts), device=DEVICE) < len(prompts)  # (2 B,) all prompts, and then all hidden
    tokens, mask = model.text(model.text.encode(prompts * 2), shown)  # (2 B, L, D), (2 B, L)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    x = torch.stack([torch.randn(3, S, S, generator=g) for g in generators]).to(DEVICE)  # (B, 3, S, S)
    for t in torch.linspace(1, 0, DRAW_STEPS + 1)[:-1].to(DEVICE):
        told, untold = model(torch.cat((x, x)), t.expand(len(shown)), tokens, mask).chunk(2)  # (B, 3, S, S) each
        x0 = untold + GUIDANCE * (told - untold)  # (B, 3, S, S)
        x = x - (x - x0) / t / DRAW_STEPS  # (B, 3, S, S)
    pixels = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)  # (B, S, S, 3)
    return [Image.fromarray(picture) for picture in pixels.cpu().numpy()]


if __name__ == "__main__":
    parser = ArgumentParser(description="Train a text-to-image model on a folder of pictures, then draw.")
    parser.add_argument("folder", type=Path, help="pictures, and metadata.jsonl with the file_name and text of each")
    parser.add_argument("prompts", nargs="+", help="what to draw")
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps (default %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="pictures that a step learns from (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and noise (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="where 0.png, 1.png, ... are written")
    args = parser.parse_args()
    images, captions = read_folder(args.folder)
    torch.manual_seed(args.seed)
    model = MMDiT(TextEncoder(captions)).to(DEVICE)
    average = copy.deepcopy(model)
    for step, loss in enumerate(train(model, average, images, captions, args), start=1):
        if step % 20 == 0 or step == args.steps:
            print(f"step {step}/{args.steps}  loss {loss:.4f}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(draw(average, args.prompts, args.seed)):
        picture.save(args.out / f"{i}.png")
        print(f"{args.out / f'{i}.png'}: {args.prompts[i]}")
