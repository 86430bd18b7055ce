"""What crypto_ml is compared with: the same graph as an ordinary Dagster project has it."""
