"""crypto_ml: market data dropped into S3, predictions of each cryptocurrency's next opening price beside it."""
