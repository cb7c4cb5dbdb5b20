"""How the page looks and answers keys, beside look.css: system fonts, so that nothing is fetched."""

from __future__ import annotations

from gradio.themes import Base

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
HEAD = """<script>
let typed = false;
addEventListener("input", () => typed = true, true);
addEventListener("keydown", e => {
  if (e.target.role !== "combobox") return;
  if (e.key === "Tab") e.stopPropagation();
  if (e.key.startsWith("Arrow")) typed = false;
  if (e.key !== "Enter" || !typed) return;
  const named = [...document.querySelectorAll("[role=option]")].find(o => o.ariaLabel === e.target.value);
  if (!named) return;
  e.stopPropagation();
  named.dispatchEvent(new MouseEvent("mousedown", {bubbles: true, cancelable: true}));
}, true);
</script>"""
"""Gradio hears of a key a moment late, and would open a list that was just left with Tab. On Enter it would take the
first name that holds what was typed, even where another one is just that."""


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
