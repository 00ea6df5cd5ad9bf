"""Web pages that citation metrics read: fetched politely, turned into text, recorded."""
