"""What an exported folder brings along to be checked with: files that stand alone, and import nothing of crypto_ml.

`check.py` needs Python alone, `compute.py` numpy and onnxruntime beside it. They are written once more, and not shared
with what they check: an auditor reads these two files, and trusts nothing else.
"""
