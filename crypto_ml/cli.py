"""The crypto-ml command."""
