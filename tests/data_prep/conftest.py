"""What the tests of several preparations share: reading records back."""

import numpy as np
import pytest


@pytest.fixture
def read_back():
    """Function (folder, split) -> the sequences by id, in order, in raw units."""

    def read(folder, split: str) -> dict[str, np.ndarray]:
        import tensorflow as tf

        from stcn_tf.data import records
        from stcn_tf.data.card import read_card

        card = read_card(folder)
        result = {}
        for path in records.verify(folder, split):
            for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                features = tf.train.Example.FromString(record).features.feature
                x = np.frombuffer(features["x"].bytes_list.value[0], "<f4")
                x = x.reshape(-1, card.num_features)
                assert features["length"].int64_list.value[0] == len(x)
                name = features["id"].bytes_list.value[0].decode()
                result[name] = card.normalization.denormalize(x)
        return result

    return read


@pytest.fixture
def files_of():
    """Function folder -> the bytes of its files by name."""
    return lambda folder: {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def groups_of():
    """Function (folder, split) -> the group of each sequence by its name."""

    def read(folder, split: str) -> dict[str, str]:
        from stcn_tf.data.batches import eval_batches

        (batch,) = eval_batches(folder, split=split, batch_size=1000)
        return dict(zip(batch.names, batch.group_names, strict=True))

    return read
