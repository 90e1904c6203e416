"""Pre-training on CIFAR-10: heads on ImageNet's features against nets from scratch. See docs/studies/pretraining.md."""
