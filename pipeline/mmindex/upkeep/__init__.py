"""Upkeep of a store: checking, collection, repair, rollback, forgetting, schedules."""
