"""SGD noise on CIFAR-10, heads on pre-trained features. See docs/studies/sgd-noise.md."""
