"""Types of the arrays that kernels take, by dtype.

Their shapes are in the docstring of each kernel, or of the named tuples that it takes.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Bool: TypeAlias = NDArray[np.bool_]
U8: TypeAlias = NDArray[np.uint8]
U16: TypeAlias = NDArray[np.uint16]
U32: TypeAlias = NDArray[np.uint32]
U64: TypeAlias = NDArray[np.uint64]
I32: TypeAlias = NDArray[np.int32]
I64: TypeAlias = NDArray[np.int64]
F64: TypeAlias = NDArray[np.float64]
#: Token ids: uint16, or uint32 where the largest possible id needs it.
Ids: TypeAlias = NDArray[np.uint16] | NDArray[np.uint32]
#: Values of any dtype: Numba compiles what takes them once for each dtype that comes.
Values: TypeAlias = NDArray[Any]
