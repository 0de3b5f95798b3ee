"""The largest buffers: from a recorded list, and of a real program."""

import jax
import jax.numpy as jnp
import numpy as np

from modjax.ops.losses import target_losses
from modjax.parallel import aot
from modjax.parallel.buffers import Buffer, buffers, largest

ASSIGNMENT = """BufferAssignment:
allocation 0: size 4000, parameter 0, shape |f32[1000]| at ShapeIndex {}:
 value: <1 kept @0> (size=4000,offset=0): f32[1000]{0}
allocation 1: size 9000, preallocated-temp:
 value: <2 unknown @0> (size=4000,offset=0): f32[1000]{0}
 value: <3 first @0> (size=4000,offset=0): f32[1000]{0:T(1024)}
 value: <4 second @0> (size=4000,offset=0): f32[10,100]{1,0}
 value: <5 third{0} @0> (size=4000,offset=4000): f32[1000]{0:T(1024)}
 value: <6 tuple{} @0> (size=512,offset=8000): (f32[1000]{0}, s32[])
 value: <7 small (phi) @0> (size=400,offset=8512): bf16[200]{0}
allocation 2: size 9000, color 1, preallocated-temp:
 value: <8 first @1> (size=9000,offset=0): f32[2250]{0}
"""


class Origins:
    """Stands for a program in which each instruction comes from a function of its name."""

    def origin(self, name, shape):
        return "" if name == "unknown" else "forward: f" if name in ("first", "third") else f"forward: {name}"


def test_the_first_known_value_of_each_place_names_it():
    found = largest(ASSIGNMENT, Origins(), 9)
    assert found == [Buffer(4000, 2, "f32[1000]", "forward: f"), Buffer(400, 1, "bf16[200]", "forward: small")]
    assert largest(ASSIGNMENT, Origins(), 1) == found[:1]


def test_of_a_real_program(tmp_path):
    """A loss at targets: the largest array that it makes is of logits."""
    shapes = [(2, 64, 8), (2, 64), (2, 64), (8, 1000)]
    types = [jnp.float32, jnp.int32, jnp.int32, jnp.float32]
    given = [jax.ShapeDtypeStruct(shape, of) for shape, of in zip(shapes, types, strict=True)]

    def loss(hidden_BTD, at_BM, labels_BM, head_DV):
        return target_losses(lambda x: x @ head_DV, hidden_BTD, at_BM, labels_BM, 64).sum()

    made = aot.compiled(jax.jit(loss).trace(*given), aot.topology("cpu"))
    assert any(np.prod((2, 64, 1000)) * 4 == one.size and "target_losses" in one.origin for one in made.buffers)


def test_a_folder_without_a_list(tmp_path):
    assert buffers(tmp_path, Origins()) == []
