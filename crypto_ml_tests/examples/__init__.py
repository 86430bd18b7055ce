"""The commands that the documents show, with what they really print: run by `make examples`."""
