"""The CSV format: what is missing is computed, what is wrong is named with its line."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from hrm.data.sudoku import SHAPES, to_text
from hrm.data.sudoku.csv import read_csv
from hrm.errors import UserError

HEADER = "source,question,answer,rating"
FOUR = "1234341221434321"
Q1 = "1.34.41.2.43.32."
Q2 = "12.434122143432."
FAMOUS = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
FAMOUS_ANSWER = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def write(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_plain_and_gzip_give_the_same(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.csv", f"s,{Q1},{FOUR},7", "", f"s,{Q2.replace('.', '0')},{FOUR},2")
    zipped = tmp_path / "b.txt"  # told by its content, not by its name
    zipped.write_bytes(gzip.compress(plain.read_bytes().replace(b"\n", b"\r\n")))
    for path in (plain, zipped):
        data = read_csv(path, SHAPES[4])
        assert [to_text(puzzle) for puzzle in data.puzzles] == [Q1, Q2]
        assert [to_text(solution) for solution in data.solutions] == [FOUR, FOUR]
        assert data.ratings.tolist() == [7, 2]
        assert data.puzzles.dtype == data.solutions.dtype == np.uint8
    assert read_csv(plain, SHAPES[4], min_rating=3).ratings.tolist() == [7]


def test_answers_and_ratings_are_computed_where_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"s,{FAMOUS},,", f"s,{FAMOUS},{FAMOUS_ANSWER},9")
    data = read_csv(path, SHAPES[9])
    assert [to_text(solution) for solution in data.solutions] == [FAMOUS_ANSWER] * 2
    assert data.ratings.tolist() == [0, 9]
    assert len(read_csv(path, SHAPES[9], min_rating=1)) == 1
    bare = write(tmp_path / "b.csv", FAMOUS, header="question")
    assert to_text(read_csv(bare, SHAPES[9]).solutions[0]) == FAMOUS_ANSWER


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"s,{Q1[:-1]},{FOUR},0", "line 3: the question has 15 characters instead of 16"),
        (f"s,{Q1},{FOUR}1,0", "line 3: the answer has 17 characters"),
        (f"s,{Q1[:-1]}5,{FOUR},0", "line 3: the question has '5', it may have 1 to 4"),
        (f"s,{Q1[:-1]}é,{FOUR},0", "line 3: the question has 'é'"),
        (f"s,{Q1[:-1]}→,{FOUR},0", "line 3: the question has '→'"),
        (f"s,11{Q1[2:]},{FOUR},0", "line 3: the question's givens clash"),
        (f"s,{Q1},{FOUR[:-1]}2,0", "line 3: the answer breaks the rules"),
        (f"s,{Q1},{FOUR[:-1]}.,0", "line 3: the answer breaks the rules"),
        (f"s,.2{'.' * 14},2134{FOUR[4:]},0", "line 3: the answer breaks the rules"),
        (f"s,2{'.' * 15},{FOUR},0", "line 3: the answer changes the givens"),
        (f"s,{'.' * 16},,0", "line 3: the question has more than one solution"),
        (f"s,123....4{'.' * 8},,0", "line 3: the question has no solution"),
        (f"s,{Q1},{FOUR},hard", "line 3: the rating 'hard' is no whole number"),
        (f"s,{Q1},{FOUR}", "line 3: 3 columns instead of 4"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.csv", f"s,{Q1},{FOUR},0", line)
    with pytest.raises(UserError, match=message.replace("(", r"\(")) as caught:
        read_csv(path, SHAPES[4])
    assert str(path) in str(caught.value)


def test_files_that_are_no_such_csv_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_csv(tmp_path / "absent.csv", SHAPES[4])
    with pytest.raises(UserError, match="must name the column 'question'"):
        read_csv(write(tmp_path / "a.csv", "x", header="puzzle"), SHAPES[4])
    with pytest.raises(UserError, match="has no puzzle"):
        read_csv(write(tmp_path / "b.csv"), SHAPES[4])
    with pytest.raises(UserError, match="no puzzle rated 5 or more"):
        read_csv(write(tmp_path / "c.csv", f"s,{Q1},{FOUR},4"), SHAPES[4], min_rating=5)
    whole = gzip.compress("\n".join([HEADER, *[f"s,{Q1},{FOUR},{i}" for i in range(99)]]).encode())
    for broken in (whole[:-12], whole[:60] + b"\xff" * 20 + whole[80:]):
        cut = tmp_path / "d.csv.gz"
        cut.write_bytes(broken)
        with pytest.raises(UserError, match="cannot read"):
            read_csv(cut, SHAPES[4])
    binary = tmp_path / "e.csv"
    binary.write_bytes(b"question\n\xff\xfe\n")
    with pytest.raises(UserError, match="cannot read"):
        read_csv(binary, SHAPES[4])
