"""Types of the arrays that kernels take, by dtype; their shapes are in the legend of each file with kernels."""

from __future__ import annotations

from typing import TypeAlias

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
