"""Delta Lake tables that only grow: opened, appended to, put together, and what their logs say."""
