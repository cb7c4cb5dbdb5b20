"""How the page looks and answers keys, beside look.css: system fonts, so that nothing is fetched."""

from __future__ import annotations

from gradio.themes import Base

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
HEAD = """<script>
addEventListener("keydown", e => e.key === "Tab" && e.target.role === "combobox" && e.stopPropagation(), true);
</script>"""
"""Gradio hears of a key a moment late, and would open a list that was just left with Tab."""


def theme() -> Base:
    """Gradio's plainest theme, in one ink."""
    return Base(primary_hue="indigo", neutral_hue="stone", radius_size="sm", font=FONTS, font_mono=MONO).set(
        body_background_fill="*neutral_50",
        block_border_width="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        input_background_fill="white",
        input_border_width="1px",
        input_border_color="*neutral_200",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
    )
