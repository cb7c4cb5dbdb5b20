"""Pictures of how a model works, one file for each kind; `fromnoise plot` writes them as PNGs.

A floor of its own, above everything that computes and below the command line: it reads paths, targets, samplers and
pipelines, and nothing reads it. In each file the numbers (plain functions, tested against closed forms) stand apart
from the drawing: `figure(...)` returns a matplotlib Figure. Two more functions serve the command: `refusal(subject,
wish)` says in one line why there is nothing to draw, or "", and `draw(subject, wish)` yields what is to be written.

matplotlib is used through its objects alone (Figure, FigureCanvasAgg), never through pyplot's global state, and is
imported by these files only. This file is kept free of it, and of torch, so that `--help` stays quick.
"""

KINDS = {
    "schedules": "alpha, sigma and log-SNR over t, the times trained on, the sampler's times",
    "weights": "the loss weight of every target in one common error, against log-SNR",
    "trajectories": "film strips: x_t and the expected x0 on the way from noise to picture",
    "straightness": "how straight that way is: chord over arc, and where it bends",
    "toy": "the velocity field of a toy in two dimensions, exact, for several paths",
    "guidance": "the same noise under guidance from 0 to 10",
    "attention": "which parts of the picture look at which word",
    "classes": "every class in one grid",
}
"""The pictures by name, in the order in which they are drawn."""
