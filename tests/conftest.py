"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# Examples are the same each time, and a busy machine fails nothing.
settings.register_profile("fromnoise", deadline=None, derandomize=True)
settings.load_profile("fromnoise")
