"""A run over a store: its stages, their order, its dry run and its report."""
