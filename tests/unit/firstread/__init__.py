"""Tests of firstread/ without service or data."""
