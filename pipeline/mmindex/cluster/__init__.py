"""Work on several machines through Ray: the connection, the nodes, tasks with restarts."""
