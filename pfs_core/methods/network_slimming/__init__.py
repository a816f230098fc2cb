"""Network Slimming (Liu et al. 2017): training with an L1 penalty on BatchNorm's scales, then a global cut."""
