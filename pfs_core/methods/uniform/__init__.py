"""One factor for every prunable width: the baseline that a search has to beat."""
