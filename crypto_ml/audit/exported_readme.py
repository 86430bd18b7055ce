"""The README of an exported folder: what each file is, what the folder shows, and what it does not."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from crypto_ml.visible import visible

FILES: Final = (
    ("check.py", "checks everything here, with Python alone"),
    ("compute.py", "computes the numbers again, with numpy and onnxruntime; check.py asks it"),
    ("SHA256SUMS", "the hash of every other file, as `sha256sum -c SHA256SUMS` reads it"),
    ("answer.json", "which answer this is, of which deployment, and under which key each file stood there"),
    ("evidence/", "stored objects, byte for byte: the receipt, what was received, cleaned and approved, the outcome"),
    (
        "evidence/receipt.json",
        "the receipt; `receipts.json` where several files were answered together, `pack.zip` of a request",
    ),
    ("evidence/upload", "the bytes as they were received; `uploads_together` where small files were kept together"),
    ("evidence/champion.json", "the entry of the champion pointer: which model was to serve, who decided so, and why"),
    ("model/", "the bundle that served: network, scaler, serving rule, and how they came about"),
    ("published/", "what was published: predictions, report, refused rows, or the forecast"),
    ("made_from/rows.csv", "every row that the numbers were made from; `context` 1: it came from the market history"),
    ("made_from/states.csv", "of series that are scaled by their own rows: the sums over their first rows"),
    ("chain/", "links of the chain of evidence, from the one that names the receipt on"),
    ("witness/", "what witnesses had of these links when this was exported, a file for each"),
    ("witness/*.tsr", "RFC 3161 time stamps: `openssl ts -verify -in X.tsr -data X.head -CAfile CA.pem` verifies one"),
)

SHOWN: Final = """\
1. No file here was altered since it was exported (`SHA256SUMS`).
2. The receipt's seal and its name follow from what it says; the model is the one that it names, and the entry of
   the champion pointer that approved it is the one that it repeats.
3. Every stored object has the hash that the receipt, the record of what was received, the model's manifest or a
   link has.
4. The receipt stood in the store when its link was made, and every later link here follows from that one. Where a
   witness was told of one of these links, nothing before it was changed since.
5. The rows in `made_from/` have the hashes that the receipt has of the rows that were accepted and of those that
   came from the history. Prices of the accepted ones are held against their lines of the upload, where that is
   plain CSV or JSON.
6. From these rows come the features (which have the receipt's hash), from them and the bytes of the model, by numpy
   and onnxruntime alone, every number: `pred_open`, and interval and range where the model has a serving rule. They
   are what was published, to the last bit, on a processor and with libraries like those in the receipt; elsewhere a
   difference of up to 16 units in the last place of a float32 is told and taken for rounding, and features that
   differ are refused."""

NOT_SHOWN: Final = """\
- Whoever gave you this folder could have made all of it up, scripts included. What they cannot make up is what a
  witness was told that they have no hold of. Get that from the witness yourself and say `--witness FILE`; and
  compare `check.py` and `compute.py` with those of the release of crypto_ml, which has them in
  `crypto_ml/audit/offline/`.
- How the bytes of the upload became the accepted rows (dialects, dates, repeats, refused rows, names of series) is
  not done again here, beyond comparing prices. `evidence/accepted.parquet` has the rows as they were kept.
  `crypto-ml replay` does it again, in the store.
- That the earlier rows were those of the market history at that time, and which uploads they came from, is what the
  receipt's hash says. `crypto-ml verify` and `crypto-ml replay --full` show it, in the store.
- That the model was trained on what its manifest says: `crypto-ml replay --retrain` shows it.
- Times are those that the program wrote, and that S3 gave the objects when their link was made. Code and image are
  what the program said that they were."""


def readme(said: Mapping[str, Any], links: tuple[int, int] | None, witnessed: Sequence[str]) -> str:
    """The README as Markdown. said: answer.json; links: the first and the last there are; witnessed: whose heads."""
    files = "\n".join(f"| `{name}` | {what} |" for name, what in FILES)
    # what may have text from outside in it stands in blocks of code, each on a line that nothing can end
    notes = "\n".join(f"    {visible(note)}" for note in said["notes"] or ["nothing"])
    chain = f"links {links[0]} to {links[1]}" if links else "none: no link named the receipt when this was exported"
    return f"""\
# Evidence of {said["answer_id"]}

Exported {said["exported_at"]} by {said["exported_by"]}, from

    {visible(said["deployment"])}

It can be checked without a network, without that store, and without crypto_ml:

```
python check.py                          # all of it; takes Python 3.10 or newer, numpy and onnxruntime
python check.py --hashes-only            # without numpy and onnxruntime: no number is computed
python check.py --witness heads.jsonl    # and against what a witness has, which you got from the witness yourself
```

It ends with `WHOLE` and exit code 0, or with `REFUSED`, one sentence that says what does not match, and exit code 1. A
witness has a line of JSON for each head of the chain (`crypto-ml verify --witness` reads the same). It is all read into
memory, some ten times what the upload takes.

| file | is |
|---|---|
{files}

Files that this answer has no use for are not here. Of the chain: {chain}. Witnesses that knew one of these links:
{", ".join(witnessed) or "none"}.

## What is shown

{SHOWN}

## What is not

{NOT_SHOWN}

## To know of this folder

{notes}
"""
