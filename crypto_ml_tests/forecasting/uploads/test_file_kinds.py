"""What is no CSV is named for what it is, with what to do; UTF-16 simply works."""

import gzip
import io
import json
import zipfile

import pyarrow as pa
import pytest
from pyarrow import feather

from crypto_ml.forecasting.uploads.file_kinds import foreign_name
from crypto_ml_tests.forecasting.uploads.files import csv, line, take


def zipped(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, csv(line()))
    return out.getvalue()


def feathered() -> bytes:
    out = io.BytesIO()
    feather.write_feather(pa.table({"symbol": ["BTC"]}), out)
    return out.getvalue()


KINDS = [
    (zipped("xl/workbook.xml"), "an Excel workbook (.xlsx); save it as CSV"),
    (zipped("content.xml").replace(b"PK\x03\x04", b"PK\x03\x04opendocument.spreadsheet", 1), "(.ods); save it as CSV"),
    (zipped("prices.csv"), "a ZIP archive; unpack it"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an old Excel workbook (.xls); save it as CSV"),
    (feathered(), "an Arrow or Feather file; write it as Parquet or CSV"),
    (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document"),
    (b"BZh91AY&SY", "a bzip2 archive; unpack it"),
    (b"\x28\xb5\x2f\xfd\x00", "a Zstandard archive; unpack it"),
    (b"\x80\x04\x95\x10\x00", "a Python pickle, which is never opened"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"<!DOCTYPE html>\n<html><table>", "an HTML page; download the table itself"),
    (b"\n <?xml version='1.0'?>"[2:], "an XML document"),
    (json.dumps([{"symbol": "BTC", "open": 1}]).encode(), "JSON; write it as CSV"),
    (json.dumps({"symbol": ["BTC"]}, indent=1).encode(), "JSON; write it as CSV"),
    (gzip.compress(csv(line())), "gzip within gzip"),
    ("ü".encode("utf-32"), "UTF-32; save it as CSV in UTF-8"),
    (csv(line(symbol="Ö")).decode().encode("cp1252"), "it may be Latin-1 or Windows-1252; save it as CSV in UTF-8"),
]


@pytest.mark.parametrize(("content", "what"), KINDS, ids=[what[:20] for _, what in KINDS])
def test_what_is_no_csv_is_named_for_what_it_is(content: bytes, what: str) -> None:
    assert what in str(take(content).intake.refusal) or content.startswith(b"\x1f\x8b")
    packed = str(take(gzip.compress(content)).intake.refusal)
    assert packed.replace(" in gzip;", ";") == str(take(content).intake.refusal) or what in packed


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.XLSX", "a spreadsheet; save it as CSV"),
        ("a.csv.zip", "an archive; unpack it"),
        ("a.txt", None),
        ("xlsx", None),
    ],
)
def test_a_name_tells_of_some_files_what_they_are(name: str, what: str | None) -> None:
    told = foreign_name(name)
    assert told is None if what is None else what in str(told)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_read_as_its_text_would_be(encoding: str) -> None:
    lines = [line(symbol=symbol) for symbol in ("BTC", "日本", "🚀")]
    content = "\ufeff" + csv(*lines, end="\r\n").decode()
    for body in (content.encode(encoding), gzip.compress(content.encode(encoding))):
        taken = take(body)
        assert taken.intake.read_as is not None
        assert taken.intake.read_as.encoding == encoding
        assert taken.rows[["symbol", "line"]].values.tolist() == [["BTC", 2], ["日本", 3], ["🚀", 4]]
    cut = take(content.encode(encoding)[:-1])
    assert "damaged UTF-16" in str(cut.intake.refusal)
    nul = take((content + "\0").encode(encoding))
    assert "NUL character" in str(nul.intake.refusal)
