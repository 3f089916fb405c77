"""Celery workers: claim, decode, batch, score, store; and periodic upkeep."""
