"""Volumes made from a StorageClass: their names, places and records in the bucket."""
