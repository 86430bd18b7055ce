"""What finds the rows of a series fast, however long the history is: a cache, which may be deleted at any time."""
