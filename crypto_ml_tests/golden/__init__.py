"""What releases really wrote: every later one traces, replays and serves it (`make golden` adds that of a release)."""
