"""The packages on a real Kubeflow Pipelines, which the environment names."""
