"""Figures of merit with their intervals; numpy alone."""
