"""Raw data -> `stcn_tf.data.records`, one command per dataset; and synthetic raw data."""
