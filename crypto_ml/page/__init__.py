"""The page on which predictions are looked at, in a browser.

Belongs here: reading a predictions file and what stands beside it from wherever they are, and showing them. Does not
belong here: making predictions, and anything that writes: the page only reads.
"""
