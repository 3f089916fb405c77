"""The worker on a real Postgres and Redis."""
