"""Networks: torch only. No loss, no files, no Lightning."""
