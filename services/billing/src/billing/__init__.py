"""Money: price book, ledger, outbox."""
