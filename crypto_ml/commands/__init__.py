"""The commands of `crypto-ml`, by subject: what a command takes, what it prints, and with which code it ends.

Belongs here: words for a person at a terminal. Does not belong here: what is done, which the other rooms do. Heavy
imports stand inside the functions, so that `crypto-ml --help` answers at once.
"""
