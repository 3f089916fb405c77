"""Tests of model/ without service or data."""
