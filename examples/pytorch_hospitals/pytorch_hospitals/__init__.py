"""A convolutional network on the images of hospitals that are enrolled round by round, by rule."""
