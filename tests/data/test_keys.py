"""Random numbers by counter."""

import numpy as np

from hrm.data.keys import draws, keys_of


def test_draws_are_splitmix64s_published_sequence() -> None:
    numbers = draws(np.array([0, 1234567], dtype=np.uint64), 3)
    assert numbers.tolist() == [
        [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F],
        [6457827717110365317, 3203168211198807973, 9817491932198370423],
    ]


def test_a_key_depends_on_every_part_and_on_nothing_else() -> None:
    serial = np.arange(100)
    keys = keys_of(3, serial)
    assert len(np.unique(keys)) == 100
    assert np.array_equal(keys[40:50], keys_of(3, serial[40:50]))
    assert not np.intersect1d(keys, keys_of(4, serial)).size
    assert keys_of(0, 1, 2) != keys_of(0, 2, 1)
    assert keys_of(-1, 5) == keys_of(-1, np.array([5]))
