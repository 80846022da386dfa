"""Networks, in torch alone. No data, no training."""
