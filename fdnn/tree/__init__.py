"""Trees of tensors: mapping, selecting by path, splitting, stacking, measuring.

The only package that imports optree. A path is the way from the root to a leaf, its steps joined
by dots: dict keys, fields of named tuples, places in tuples and lists. The leaf
`params["0.weight"]` of a flat dict has the path `"0.weight"`, and `state.slots["w"]` has
`"slots.w"`. `None` is an empty tree: it has no leaf and stays where it is.
"""

from fdnn.tree.arithmetic import all_finite, cast, global_norm, where, zeros_like
from fdnn.tree.compare import assert_same_structure
from fdnn.tree.mapping import column, columns, leaves, map, map_with_path, paths, refill
from fdnn.tree.selection import combine, partition, select
from fdnn.tree.stacking import ravel, stack, unstack

__all__ = [
    "all_finite",
    "assert_same_structure",
    "cast",
    "column",
    "columns",
    "combine",
    "global_norm",
    "leaves",
    "map",
    "map_with_path",
    "partition",
    "paths",
    "ravel",
    "refill",
    "select",
    "stack",
    "unstack",
    "where",
    "zeros_like",
]
