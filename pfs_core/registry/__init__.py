"""Models in the MLflow Model Registry that ask to be compressed: found, claimed, and finished with their results."""
