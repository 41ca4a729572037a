"""Maintenance of a store: check, gc, repair, rollback, forget, schedule."""
