"""NPY files as token files use them: written row by row as rows come, read in pieces or mapped, and never trusted.

A file is written through ordinary writes, so that a full disk is an error and not the end of the process, as it is
for a file that is mapped for writing. NumPy leaves room in a header for a number of rows of any size, so the header
is written first and its number of rows last. What is read is checked against the size of the file before it is used.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from trl_math.errors import DataError


@dataclass(frozen=True)
class NpyFile:
    """A whole NPY file: what its header says, and where its numbers begin."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int

    @classmethod
    def open(cls, path: Path, kinds: tuple[type, ...], num_axes: tuple[int, ...]) -> "NpyFile":
        """Read the header; raise a `DataError` for a file that is cut off, or holds something else."""
        try:
            with path.open("rb") as file:
                shape, is_fortran, dtype = _read_header(file)
                offset = file.tell()
        except OSError as error:
            raise DataError(f"Cannot read {path}: {error.strerror or error}.") from None
        except (ValueError, EOFError) as error:
            raise DataError(f"{path} is no NPY file, or not a whole one: {' '.join(str(error).split())}.") from None
        allowed = [np.dtype(kind) for kind in kinds]
        if dtype not in allowed or len(shape) not in num_axes or is_fortran:
            order = ", column by column" if is_fortran else ""
            raise DataError(
                f"{path} holds {dtype} of shape {shape}{order}; it must be {' or '.join(map(str, allowed))} with "
                f"{' or '.join(map(str, num_axes))} axes, row by row."
            )
        wanted = offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
        found = path.stat().st_size
        if found != wanted:
            raise DataError(
                f"{path} is not whole: its header promises {wanted:,} bytes, and it has {found:,}. Make it again."
            )
        return cls(path, shape, dtype, offset)

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.shape, dtype=object))

    def mapped(self) -> np.ndarray:
        """Return the array on the file, read-only: pages come into memory when they are touched."""
        if self.size == 0:
            return np.empty(self.shape, self.dtype)
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the numbers `start` to `stop` of the flattened array, as a copy that leaves nothing mapped."""
        return np.fromfile(self.path, self.dtype, count=stop - start, offset=self.offset + start * self.dtype.itemsize)


class NpyWriter:
    """Writes rows of a fixed shape (numbers by default) as they come."""

    def __init__(self, path: Path, dtype: Any, row_shape: tuple[int, ...] = ()) -> None:
        self._dtype, self._row_shape, self._num_rows = np.dtype(dtype), row_shape, 0
        self._file = path.open("w+b")
        self._header_size = self._write_header()

    def append(self, rows: np.ndarray) -> None:
        """Write rows of the file's shape."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self._num_rows += len(rows)

    def finish(self) -> None:
        """Write how many rows there are, and close the file."""
        assert self._write_header() == self._header_size
        self.close()

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _write_header(self) -> int:
        self._file.seek(0)
        shape = (self._num_rows, *self._row_shape)
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, header)
        return self._file.tell()


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format has version {version}")
    return npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
