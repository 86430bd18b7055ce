"""Whatever is in a file, whoever cleans it holds a bounded part of it, in memory and in the list of refused rows."""

from pathlib import Path

import pytest

from crypto_ml.forecasting.refusals import LISTED
from crypto_ml_tests.forecasting.bombs import BOMBS, cleaned_in_a_process, write_bomb

pytestmark = pytest.mark.bombs
MOST_MEMORY = 800e6
MOST_ON_DISK = 200e6
SIZE = 60_000_000
SMALLER = {  # what takes long for each of its bytes, or shows what it does in its first blocks
    "shortest_rows": 17_000_000,
    "newlines": 17_000_000,
    "all_ragged": 2_000_000,
    "distinct_slugs": 10_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_is_cleaned_with_bounded_memory_whatever_is_in_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv"
    write_bomb(name, path, SMALLER.get(name, SIZE))
    found = cleaned_in_a_process(path, tmp_path / "room")
    assert found.peak_bytes < MOST_MEMORY, found
    assert found.disk_bytes < MOST_ON_DISK, found
    assert found.received == found.accepted + found.refused + found.repeated
    assert found.listed == (LISTED if found.refused > LISTED else None)
    assert (found.refusal is None) == (found.accepted > 0)


def test_gzip_of_the_same_line_again_and_again_is_refused_before_it_is_all_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    write_bomb("one_day_repeated", path, 150_000_000)
    assert path.stat().st_size < 700_000
    found = cleaned_in_a_process(path, tmp_path / "room")
    assert "of gzip expand to more than 200 times as many" in str(found.refusal)
    assert found.peak_bytes < MOST_MEMORY
