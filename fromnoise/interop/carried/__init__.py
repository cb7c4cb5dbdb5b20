"""Code that exported folders carry, cut out of the package by `interop.source`: what diffusers has no class for."""
