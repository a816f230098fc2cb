"""One module for each format that a dataset may have."""
