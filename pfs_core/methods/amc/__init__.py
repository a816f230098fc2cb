"""AMC (He et al. 2018): a reinforcement-learning agent chooses how much each group of a trained network keeps."""
