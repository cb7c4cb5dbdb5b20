"""The studio: drawing and training in a browser, by Gradio (the extra `studio`).

Thin: what is shown comes from the floors below. `page.py` lays the page out and `serve.py` serves it, both without
torch, so that the page is there while the model is still loaded; `drawing.py` and `following.py`, which need torch, are
imported when somebody first draws or looks at a run.
"""
