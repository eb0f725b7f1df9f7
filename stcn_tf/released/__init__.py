"""The authors' released TensorFlow 1 program: its names, configurations and checkpoints."""
