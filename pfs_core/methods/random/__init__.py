"""Widths drawn at random: what a search has to beat to be worth anything."""
