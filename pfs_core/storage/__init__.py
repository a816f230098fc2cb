"""Files: local folders and S3 prefixes as one thing, and results that are whole or absent."""

from pfs_core.storage.backends import Storage, open_file, open_storage
from pfs_core.storage.local import LocalStorage
from pfs_core.storage.s3 import ATTEMPTS, S3Storage

__all__ = ["ATTEMPTS", "LocalStorage", "S3Storage", "Storage", "open_file", "open_storage"]
