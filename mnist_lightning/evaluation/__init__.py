"""Numbers and pictures of a result: metrics, calibration, predictions, plots, report. Nothing trains here."""
