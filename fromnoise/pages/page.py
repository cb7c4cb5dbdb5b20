"""What all HTML pages here are made of: one style, tables, figures, numbers as people read them, pictures within.

A page fetches nothing, so that it can be kept, sent and opened anywhere. Every number that is shown stands in a
<data value> in full.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

Shown = Callable[[float], str]


def page(title: str, intro: str, sections: Sequence[tuple[str, str]], end: str) -> str:
    """A page of sections, each a heading and its HTML; `intro` stands under the title, `end` in small print."""
    body = "\n".join(f"<section>\n<h2>{head}</h2>\n{content}\n</section>" for head, content in sections)
    return _PAGE.format(title=escape(title), style=_STYLE, intro=intro, body=body, end=end)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """A table of names, and HTML of what is said of each."""
    lines = "".join(f"<tr><th scope=row>{escape(name)}</th><td>{said}</td></tr>" for name, said in rows)
    return f"<div class=wide><table class=pairs><tbody>{lines}</tbody></table></div>"


def listed(rows: Sequence[tuple[str, str]]) -> str:
    """Names, and long words under each."""
    return (
        "<ul class=hashes>"
        + "".join(f"<li>{escape(name)}<br><code>{said}</code></li>" for name, said in rows)
        + "</ul>"
    )


def figures(charts: Sequence[str], pairwise: bool = False) -> str:
    """Charts beside each other, as many as fit, or two."""
    return (
        f"<div class='charts{' pairwise' if pairwise else ''}'>"
        + "".join(f"<figure>{svg}</figure>" for svg in charts)
        + "</div>"
    )


def how(content: str) -> str:
    """A note on how to read what stands before it."""
    return f"<div class=how><b>How to read this</b>{content}</div>"


def notes(lines: Sequence[str]) -> str:
    """What a reader must know first."""
    return "<ul class=notes>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def folded(title: str, content: str) -> str:
    """What only some will want to read: opened by a click."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def chip(name: str, colour: str) -> str:
    """A name, and the colour of its lines."""
    return f'<span class=chip style="background:{colour}"></span>{escape(name)}'


def png(encoded: str, about: str) -> str:
    """A picture, whose PNG is given in base64."""
    return f'<img alt="{escape(about)}" src="data:image/png;base64,{encoded}">'


def embedded(data: bytes, about: str) -> str:
    """A picture, whose PNG is given."""
    return png(base64.b64encode(data).decode(), about)


def count(value: float) -> str:
    """1,234"""
    return f"{value:,.0f}"


def large(value: float) -> str:
    """1.52 M"""
    power = min(max(len(f"{value:.0f}") - 1, 0) // 3, 6)
    return f"{value / 1000**power:.3g} {' KMGTPE'[power]}".strip()


def plain(value: float) -> str:
    """Three digits, or as many as stand before the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.2e}"


def percent(value: float) -> str:
    """A share: 12.3 %"""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of shares: +1.2 points"""
    return f"{100 * value:+.1f} points"


def signed(value: float) -> str:
    """A difference: +0.12"""
    return f"{value:+.3g}"


def data(value: float, shown: Shown) -> str:
    """A number as people read it, and as it is."""
    return f'<data value="{value!r}">{shown(value)}</data>'


def estimate(found: dict[str, Any] | None, shown: Shown) -> str:
    """A mean, with its interval under it where there is one."""
    if found is None:
        return "–"
    text = data(found["mean"], shown)
    if found["low"] is None:
        return text
    return f"{text}<br><small>[{data(found['low'], shown)}, {data(found['high'], shown)}]</small>"


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1180px; margin: 2rem auto;
  padding: 0 1.2rem; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.6rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e4e4e4; }
th { font-weight: 600; color: #555; } td { white-space: nowrap; } small { color: #666; }
.pairs td { white-space: normal; overflow-wrap: anywhere; } .pairs th { min-width: 7rem; }
.wide { overflow-x: auto; margin: .8rem 0; }
.how { background: #f6f7f9; border-left: 3px solid #c9d0da; padding: .5rem .9rem; font-size: .87rem; margin: .8rem 0; }
.how p { margin: .3rem 0; }
.charts, .grids { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); gap: 1rem; }
.pairwise { grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; font-size: .88rem; margin-bottom: .3rem; }
svg { width: 100%; height: auto; } svg text { font-family: system-ui, sans-serif !important; }
img { width: 100%; image-rendering: pixelated; display: block; background: #ddd; }
.sheets img { image-rendering: auto; min-width: 640px; } .sheets figure { overflow-x: auto; }
.strips { width: 100%; } .strips td { width: 100%; padding: .1rem 0; border: 0; } .strips th { border: 0; }
.chip { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .45em; }
.notes { color: #7a4b00; font-size: .9rem; }
.hashes { font-size: .78rem; color: #555; overflow-wrap: anywhere; padding-left: 1.2rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: .6rem; margin: 1.2rem 0; }
.facts div { background: #f6f7f9; border-radius: 4px; padding: .5rem .8rem; font-size: .8rem; color: #555; }
.facts b { display: block; font-size: 1.1rem; white-space: nowrap; color: #222; font-variant-numeric: tabular-nums; }
details { margin: .8rem 0; } summary { cursor: pointer; color: #0060a0; }
pre { background: #f6f7f9; padding: .8rem; overflow-x: auto; font-size: .8rem; line-height: 1.4; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{intro}
{body}
<p><small>{end}</small></p>
</body>
</html>
"""
