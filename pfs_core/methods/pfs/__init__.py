"""Pruning from Scratch (Wang et al. 2020): one gate per channel, learned on frozen random weights."""
