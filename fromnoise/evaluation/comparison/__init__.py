"""Recipes, runs and settings side by side: what is made equal, what is measured of each, and the page that tells it."""
