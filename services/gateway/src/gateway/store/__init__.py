"""The gateway's tables, a module a noun. Functions take the connection first; the caller's transaction is theirs."""
