"""What the bytes of an upload say: which kind of file it is, which column is which, how it writes dates and numbers.

Bytes in, columns of text and a style out. What a row must be is said in `forecasting.cleaning`.
"""
