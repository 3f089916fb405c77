"""Tests of the simulated scanner and its sender."""
