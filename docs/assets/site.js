// Equations: what the Markdown extension `arithmatex` left as \( \) and \[ \] is drawn by KaTeX, which lies beside this.
document.addEventListener("DOMContentLoaded", () => {
  for (const place of document.querySelectorAll(".arithmatex")) {
    const text = place.textContent.trim();
    katex.render(text.slice(2, -2), place, { displayMode: text.startsWith("\\["), throwOnError: true });
  }
});
