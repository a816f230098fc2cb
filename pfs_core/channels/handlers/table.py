"""The handler of every operator that is known, by its ATen name.

To support an operator, write a handler and enter it in the table of its kind.
"""

from pfs_core.channels.handlers.elementwise import ELEMENTWISE
from pfs_core.channels.handlers.joining import JOINING
from pfs_core.channels.handlers.layers import LAYERS, Handler
from pfs_core.channels.handlers.products import PRODUCTS
from pfs_core.channels.handlers.reductions import REDUCTIONS
from pfs_core.channels.handlers.shapes import SHAPES
from pfs_core.channels.handlers.spatial import SPATIAL

HANDLERS: dict[str, Handler] = {**LAYERS, **ELEMENTWISE, **SPATIAL, **SHAPES, **JOINING, **REDUCTIONS, **PRODUCTS}
"""``{operator: handler}``."""
