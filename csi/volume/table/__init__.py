"""The option table: every key of a volume, what it means and what happens to it, and the page made of it."""
