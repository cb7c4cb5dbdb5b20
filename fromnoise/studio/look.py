"""How the page looks: quiet, one column, the picture in the middle; system fonts, so that nothing is fetched."""

from __future__ import annotations

from gradio.themes import Base

WIDTH = 820  # pixels of the column
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")


def theme() -> Base:
    """Gradio's plainest theme, in one ink."""
    return Base(primary_hue="indigo", neutral_hue="stone", radius_size="sm", font=FONTS, font_mono=MONO).set(
        body_background_fill="*neutral_50",
        block_border_width="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        input_background_fill="white",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
    )


CSS = (
    f"""
.gradio-container {{ max-width: {WIDTH}px !important; margin: 0 auto !important; }}
"""
    + """
#title h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -.02em; margin: .6rem 0 .1rem; }
#title p { color: var(--body-text-color-subdued); margin: 0; }
.about p { color: var(--body-text-color-subdued); font-size: .82rem; }
.film { margin: 0 auto; }
.pair { display: flex; gap: 1rem; justify-content: center; flex-wrap: wrap; }
.pair figure { flex: 0 1 320px; min-width: 130px; margin: 0; text-align: center; }
.film figcaption, .strip figcaption { color: var(--body-text-color-subdued); font-size: .85rem; padding: .2rem 0; }
.pair img { width: 100%; border-radius: 6px; image-rendering: pixelated; background: #8882; }
.film p { display: flex; gap: .6rem; justify-content: center; align-items: center; margin: .5rem auto;
  max-width: 656px; }
.film output { color: var(--body-text-color-subdued); font-size: .85rem; font-variant-numeric: tabular-nums; }
.film .time input { flex: 1; accent-color: var(--primary-600); min-width: 0; }
.play { border: 1px solid var(--border-color-primary); border-radius: 50%; width: 2rem; height: 2rem; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)); gap: .5rem; margin-top: .8rem; }
.strip figure { margin: 0; text-align: center; }
.strip img { width: 100%; border-radius: 4px; image-rendering: pixelated; background: #8882; }
.save { display: block; width: max-content; margin: .4rem auto; }
.note { color: var(--body-text-color-subdued); font-size: .85rem; max-width: 656px; margin: .4rem auto;
  overflow-wrap: anywhere; }
table.sweep { width: 100%; table-layout: fixed; border-collapse: separate; border-spacing: 3px; }
table.sweep th, table.sweep td { padding: 0; border: 0; font-weight: 500; font-size: .82rem; text-align: center; }
table.sweep img, table.sweep i { display: block; width: 100%; border-radius: 4px; image-rendering: pixelated; }
table.sweep i { aspect-ratio: 1; background: var(--block-border-color); opacity: .35; }
.empty { color: var(--body-text-color-subdued); text-align: center; padding: 3.5rem 1rem; }
.facts { display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; margin: .5rem 0; }
.facts div { display: flex; flex-direction: column; font-size: .82rem; color: var(--body-text-color-subdued); }
.facts b { font-size: 1.1rem; font-weight: 600; color: var(--body-text-color); font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: .6rem; }
.charts figure { margin: 0; background: white; border-radius: 6px; padding: .3rem; }
.charts svg { width: 100%; height: auto; }
progress { width: 100%; height: .5rem; accent-color: var(--primary-600); }
#previews .pair figure { flex-basis: 100%; }
#previews img { image-rendering: auto; }
:focus-visible { outline: 2px solid var(--primary-500) !important; outline-offset: 2px; }
@media (max-width: 480px) { .pair { gap: .5rem; flex-wrap: nowrap; } .pair figure { min-width: 0; flex: 1; } }
"""
)
