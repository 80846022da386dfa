"""From a person's photo to the 28×28 pixels of MNIST. No torch."""
