"""The models of a table, trained and evaluated alike: `python -m stcn_tf.reproduce`."""
