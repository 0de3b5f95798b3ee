import numpy as np
import pytest
from safetensors.numpy import load_file

from modjax.models import hf
from modjax.models.config import FAMILIES
from modjax.models.hf_names import MODULES, rows
from modjax.models.weights import leaves


@pytest.mark.parametrize("family", FAMILIES)
def test_leaves_give_back_every_tensor_of_the_file(torch_model, tmp_path, family):
    torch_model(family).save_pretrained(tmp_path)
    decoder, tensors = hf.read(tmp_path), load_file(tmp_path / hf.SINGLE)
    for path, leaf in leaves(decoder).items():
        row = rows(decoder.config)[path]
        stacked = np.asarray(leaf) if path.startswith("blocks.") else np.asarray(leaf)[None]
        for i, array in enumerate(stacked):
            np.testing.assert_array_equal(
                row.transform.undo(array, decoder.config), tensors.pop(row.source.format(i=i)), err_msg=path
            )
    assert not tensors


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_has_a_module(torch_model, tmp_path, family):
    torch_model(family).save_pretrained(tmp_path)
    names = [part.removeprefix("blocks.") for part in MODULES[family]]
    sites = [name for name in names if name.startswith(("attn.", "mlp."))]
    assert sites == list(hf.config(tmp_path).sites)
