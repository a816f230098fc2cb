"""Files: local folders and S3 prefixes as one thing, and results that are whole or absent."""

from pfs_core.storage.backends import ATTEMPTS, LocalStorage, S3Storage, Storage, open_file, open_storage

__all__ = ["ATTEMPTS", "LocalStorage", "S3Storage", "Storage", "open_file", "open_storage"]
