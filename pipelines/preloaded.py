"""Imported last by the process that the steps of a local run are forked from (:mod:`pfs_pipelines.forked`)."""

import atexit
import gc
import os

gc.freeze()  # what is imported stays: no step looks through it for garbage, and so copies it
atexit.register(os._exit, 0)  # taking apart what was imported would take seconds
