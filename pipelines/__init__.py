"""The Kubeflow pipelines, and the ``pfs`` command that runs and compiles them."""
