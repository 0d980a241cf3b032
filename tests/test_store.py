"""Stores: what becomes of a sweep's folder when things go wrong."""
