"""Methods of choosing a structure. Each is a function that takes one context and returns one result.

A method is a package with its settings (``config.py``) and a function ``run`` (``search.py``), and one row in
:mod:`pfs_core.methods.registry`. :func:`pfs_core.methods.run.search` runs all of them and writes the ``gates`` folder.
"""
