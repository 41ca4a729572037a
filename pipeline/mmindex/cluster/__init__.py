"""Work on several machines, through Ray: the connection, the nodes, tasks that survive deaths."""
