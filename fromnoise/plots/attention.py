"""From words to pixels: how much each part of the picture looks at each word, while it is drawn.

Averages over heads, blocks and steps, as in DAAM (Tang et al. 2023) and Prompt-to-Prompt (Hertz et al. 2023). Numbers
are shares of all that a place looks at: in cross-attention (U-Net, CrossDiT) those of all words and the start token
make 1; in joint attention (MMDiT) what is left goes to the picture itself.

Legend: B batch, N places of the picture, L text tokens, M keys, H heads, D head width, E words, h and w rows and
columns, S steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from fromnoise.conditioning.text import TextConditioner
from fromnoise.models import mmdit
from fromnoise.nn import attention as cross
from fromnoise.nn.attention import rotate
from fromnoise.nn.position import Turns
from fromnoise.pipeline.pictures import stem
from fromnoise.pipeline.pipeline import Pipeline, check_prompts
from fromnoise.plots.style import GREY, HEAT, Drawn, grid, sheet, show, styled
from fromnoise.plots.subject import Subject, Wish, no_model
from fromnoise.plots.trace import times_of

Look = Callable[..., Tensor]
"""The arguments of a module's call -> shares (B, N, L) of what each place looks at."""
ROWS = 4  # parts of the way from noise to picture, each a row
OVERLAY = 256  # least side, in pixels, of a map over a picture
MOST_PROMPTS = 2  # where none is wished


def shares(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """q (B, H, N, D) and k (B, H, M, D) -> softmax(q k / sqrt(D) + bias), its mean over the heads, (B, N, M)."""
    scores = (q.float() @ k.float().transpose(-1, -2)) * q.shape[-1] ** -0.5  # (B, H, N, M)
    return (scores if bias is None else scores + bias).softmax(-1).mean(1)  # (B, N, M)


def joint(attn: mmdit.Attention) -> Look:
    """Where the picture looks in joint attention."""

    def look(image: Tensor, text: Tensor, bias: Tensor, turns: Turns) -> Tensor:
        q, k_image = attn.heads(image, attn.to_q, attn.to_k)  # (B, H, N, D) each
        (k_text,) = attn.heads(text, attn.add_k_proj)  # (B, H, L, D)
        q, k_image = rotate(attn.norm_q(q), turns.image), rotate(attn.norm_k(k_image), turns.image)
        k_text = rotate(attn.norm_added_k(k_text), turns.text)  # (B, H, L, D)
        return shares(q, torch.cat((k_text, k_image), 2), bias)[..., : text.shape[1]]  # (B, N, L)

    return look


def crossing(attn: cross.Attention) -> Look:
    """Where the picture looks in cross-attention."""

    def look(x: Tensor, source: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k = (
            f(y).unflatten(-1, (-1, attn.head_width)).transpose(1, 2) for f, y in ((attn.to_q, x), (attn.to_k, source))
        )
        return shares(q, k, bias)  # (B, N, L)

    return look


def lookers(backbone: nn.Module) -> list[tuple[nn.Module, str, Look]]:
    """Every module in which the picture looks at the text, its method that is called, and what it then sees."""
    found: list[tuple[nn.Module, str, Look]] = []
    for name, module in backbone.named_modules():
        if isinstance(module, mmdit.Attention):
            found += [(module, "forward", joint(module)), (module, "image_only", joint(module))]
        if isinstance(module, cross.Attention) and name.endswith("attn2"):  # diffusers' name of cross-attention
            found.append((module, "forward", crossing(module)))
    return found


@contextmanager
def watched(backbone: Any) -> Iterator[list[Tensor]]:
    """Inside, the list given grows by the shares (B, N, L) of each call in which the picture looks at the text.

    The shares are computed again from what the module was given; what it returns is untouched, and afterwards the
    modules are as they were.
    """
    seen: list[Tensor] = []
    with ExitStack() as stack:
        for block in backbone.blocks():
            if block._compiled_call_impl is not None:  # compiled code would not notice that it is watched
                stack.callback(setattr, block, "_compiled_call_impl", block._compiled_call_impl)
                block._compiled_call_impl = None
        for module, method, look in lookers(backbone):
            setattr(module, method, _watching(getattr(module, method), look, seen))
            stack.callback(delattr, module, method)
        yield seen


def _watching(call: Callable[..., Any], look: Look, seen: list[Tensor]) -> Callable[..., Any]:
    def watch(*args: Any) -> Any:
        seen.append(look(*args))
        return call(*args)

    return watch


def words_of(conditioner: TextConditioner, prompt: str) -> tuple[list[str], list[int]]:
    """The words that are read of `prompt`, and of each token which word it is of, -1 for the start token."""
    encoding = conditioner.tokenizer.encode(prompt)
    of = [-1 if word is None else word for word in encoding.word_ids][: conditioner.most]
    words = [""] * (max(of) + 1)
    for word, (first, last) in zip(of, encoding.offsets, strict=False):
        if word >= 0:
            words[word] += prompt[first:last]
    return [word.strip() for word in words], of


class Attention(NamedTuple):
    """Where a picture looked while it was drawn."""

    words: list[str]  # E of them
    times: Tensor  # (S,) at which the network was asked
    maps: Tensor  # (S, E, h, w) shares of what a place looks at
    expected: list[Image.Image]  # S pictures x0, as expected at each time
    picture: Image.Image


def attended(pipeline: Pipeline, prompt: str, seed: int = 0, steps: int | None = None) -> Attention:
    """Draw `prompt` and watch. Shares are of the forward with the prompt, not of the one without."""
    check_prompts([prompt])
    steps = steps or pipeline.config.sampling.steps
    words, of = words_of(pipeline.conditioner, prompt)
    maps, expected, last = [], [], None
    guidance = pipeline.config.sampling.guidance or 1.0  # at 0 nobody reads the prompt
    with watched(pipeline.backbone) as seen:
        for last in pipeline.stream(prompt, steps, guidance, seed, precision="float32"):
            maps.append(_by_word(_merged(seen), of, len(words)))
            expected += pipeline.pictures(last.x0)
            seen.clear()
    assert last is not None, "a sampler takes at least one step"
    (picture,) = pipeline.pictures(last.x)
    return Attention(words, times_of(pipeline.config, steps)[:-1], torch.stack(maps), expected, picture)


def _merged(seen: Sequence[Tensor]) -> Tensor:
    """The mean of all calls of a step, each (B, N, L) of its own N, on the finest grid there is: (L, h, w).

    Row 0 is the picture with its prompt; pictures are square.
    """
    side = max(round(one.shape[1] ** 0.5) for one in seen)
    grids = [one[:1].transpose(1, 2).unflatten(-1, (round(one.shape[1] ** 0.5), -1)) for one in seen]  # (1, L, h, w)
    resized = [F.interpolate(one, (side, side), mode="bilinear") for one in grids]  # keeps shares at most 1
    return torch.cat(resized).mean(0).cpu()  # (L, h, w)


def _by_word(maps: Tensor, of: Sequence[int], count: int) -> Tensor:
    """What is looked at each word: the sum over its tokens. maps (L, h, w) -> (E, h, w)."""
    words = maps.new_zeros(count + 1, *maps.shape[1:])  # the last takes the start token
    return words.index_add(0, torch.tensor(of) % (count + 1), maps[: len(of)])[:count]


@styled
def figure(pipeline: Pipeline, prompt: str, seed: int = 0, steps: int | None = None) -> Figure:
    """A column for each word, a row for all steps together, and one for each quarter of the way."""
    found = attended(pipeline, prompt, seed, steps)
    count = len(found.times)
    parts = [range(count), *(part.tolist() for part in torch.arange(count).tensor_split(min(ROWS, count)))]
    columns = len(found.words) + 1
    drawn = sheet(
        0.5 + 1.15 * columns,
        1.0 + 1.25 * len(parts),
        f"Which parts of the picture look at which word: {prompt!r}",
        "Light: looks at the word. The number: the largest share of a place's attention, mean over heads and blocks; "
        f"one scale for each row. Seed {seed}.",
    )
    axes = grid(drawn, len(parts), columns)
    for row, part in enumerate(parts):
        picture = found.picture if row == 0 else found.expected[part[len(part) // 2]]
        maps = found.maps[list(part)].mean(0)  # (E, h, w)
        show(axes[row, 0], picture)
        label = "all steps" if row == 0 else f"t {found.times[part[0]]:.2f} – {found.times[part[-1]]:.2f}"
        axes[row, 0].set_ylabel(label, size=9.5)
        for column, one in enumerate(maps, 1):
            _heat(axes[row, column], picture, one, float(maps.max()))
    for column, word in enumerate(("picture", *found.words)):
        axes[0, column].set_title(word, loc="center", weight="bold" if column else None)
    return drawn


def overlay(picture: Image.Image, one: Tensor, top: float) -> Image.Image:
    """A map (h, w) of shares up to `top`, laid over the picture in grey."""
    times = max(1, -(-OVERLAY // max(picture.size)))
    side = (picture.width * times, picture.height * times)
    below = picture.convert("L").convert("RGB").resize(side, Image.Resampling.NEAREST)
    shares = F.interpolate(one[None, None] / max(top, 1e-9), (side[1], side[0]), mode="bilinear")[0, 0]  # (H, W)
    heat = Image.fromarray(colormaps[HEAT](shares.clamp(0, 1).numpy(), bytes=True)).convert("RGB")
    return Image.blend(below, heat, 0.7)


def _heat(axes: Any, picture: Image.Image, one: Tensor, top: float) -> None:
    """A map (h, w) of shares up to `top` over the picture, and its largest share below."""
    show(axes, overlay(picture, one, top))
    axes.set_xlabel(f"{float(one.max()):.1%}", size=7.5, color=GREY, labelpad=1)


def refusal(subject: Subject, wish: Wish) -> str:
    if subject.config.conditioner.type != "text":
        return "it reads no words"
    if subject.model is None:
        return no_model(subject, wish)
    if not lookers(subject.model.backbone):
        return f"in a {subject.config.backbone.type} the picture does not look at words: it is given one vector"
    return no_model(subject, wish)


def draw(subject: Subject, wish: Wish) -> Iterator[Drawn]:
    steps = subject.steps(wish)
    for ask in subject.asks(wish, MOST_PROMPTS):
        drawn = figure(subject.pipeline, ask.prompt, wish.seed, steps)
        name = f"{subject.name}_attention_{stem(ask.prompt, wish.seed)}"
        yield Drawn(name, drawn, subject.about(wish, "attention", prompt=ask.prompt, steps=steps))
