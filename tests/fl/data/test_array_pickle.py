"""Arrays come out of a pickle; code does not run."""

import pickle

import numpy as np
import pytest

from fl.data.array_pickle import read_arrays


class _Code:
    def __reduce__(self):
        return (print, ("run",))


def test_arrays_of_older_numpy_in_containers_are_read(tmp_path):
    arrays = {"layer": [np.arange(6.0).reshape(2, 3), {"bias": np.ones(2, dtype=np.float32)}]}
    text = pickle.dumps(arrays, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path = tmp_path / "arrays"
    path.write_bytes(text)

    (kernel, other) = read_arrays(path)["layer"]

    np.testing.assert_array_equal(kernel, [[0, 1, 2], [3, 4, 5]])
    assert other["bias"].dtype == np.float32


def test_anything_else_is_refused(tmp_path, capsys):
    path = tmp_path / "code"
    path.write_bytes(pickle.dumps({"layer": _Code()}))

    with pytest.raises(pickle.UnpicklingError, match=r"a reference to builtins\.print"):
        read_arrays(path)
    assert capsys.readouterr().out == ""
