"""Networks. They need torch only, and know nothing of data or training."""
