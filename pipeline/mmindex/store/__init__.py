"""The store: paths, atomic publishing, manifests, versions, the writer's lock."""
