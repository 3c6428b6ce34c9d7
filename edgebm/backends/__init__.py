"""Host side of the engines: what each accepts and how its artifact is built."""
