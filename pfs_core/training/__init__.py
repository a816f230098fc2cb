"""Training a structure from a fresh initialisation, and evaluating networks."""
