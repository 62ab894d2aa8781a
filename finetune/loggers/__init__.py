"""Where the events of a training also go: TensorBoard, Weights & Biases, MLflow."""
