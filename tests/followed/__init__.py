"""Networks whose code calls operations by itself: what is found of them, and that it is cut exactly."""
