"""One factor for every prunable width: what a search is compared with."""
