"""What a few seconds of arithmetic tell of a training before hours are spent on it."""
