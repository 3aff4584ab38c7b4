"""Who a request comes from: signatures, keys, tokens, STS, public access."""
