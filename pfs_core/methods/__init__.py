"""Ways of choosing a structure. Each is a function of one context that returns one result.

A method is a package with its settings (``config.py``) and a function ``run``, and one row in
:mod:`pfs_core.methods.registry`. All of them go through :func:`pfs_core.methods.run.search` and end
in a ``gates`` folder.
"""
