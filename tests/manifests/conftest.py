"""The tests of manifests compile all pipelines."""

import tests.quick_compilation  # noqa: F401 - takes effect when it is imported
