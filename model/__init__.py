"""Encoders, INSIGHT, calibration, bundles and training; runs on files, needs no service."""
