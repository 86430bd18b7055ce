"""Predictions over REST: the HTTP around the road of requests (`crypto_ml.stages.requests`).

What belongs here: how a request is let in, how long it may take, what it looks like on the way in and out, and the
processes that do so. Does not belong here: anything that decides a number, or what is recorded of an answer.
"""
