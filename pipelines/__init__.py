"""The Kubeflow pipelines, and the command ``pfs`` that runs, compiles and submits them."""
