"""Training networks from a fresh initialisation or from inherited weights, and evaluating them."""
