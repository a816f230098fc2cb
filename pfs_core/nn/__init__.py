"""Layers that compute what torch's layers compute, faster or around a fault, and the fusing of BatchNorm."""
