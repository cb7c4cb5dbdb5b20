"""What a GPU makes of fromnoise: right or not, how fast, does it train. `python -m benchmarks.gpu`: docs/gpu.md."""
