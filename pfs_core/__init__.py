"""Pruning from Scratch: find how wide each layer should be before training it.

The library behind the ``pfs`` command and the Kubeflow components. It knows nothing of Kubeflow; MLflow is
imported only by :mod:`pfs_core.tracking` and :mod:`pfs_core.registry`, and only when a tracking store is configured.
"""

import logging

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library is silent until its user configures logging
