"""Widths drawn at random: a search that does no better is not worth its cost."""
