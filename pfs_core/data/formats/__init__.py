"""The formats of datasets, one module per format."""
