"""From a photo of a digit to the 28×28 pixels of MNIST. No torch."""
