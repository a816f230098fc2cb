"""Layers that compute what torch's own compute, faster."""
