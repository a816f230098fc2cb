"""Retraining on several nodes of a Kubernetes cluster, as a TrainJob of Kubeflow Trainer v2."""
