"""Compares the results and gradients of the scan with kernels with those of a plain scan."""

import functools
import re

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqlab.layers.recurrent import Recurrent
from seqlab.layers.scan import multiplier, scan

RANDOM = np.random.default_rng(0)


def drawn(*shape):
    return jnp.float32(RANDOM.normal(size=shape))


def plain(body, kernels, state, xs, *, dtype, reverse):
    return jax.lax.scan(functools.partial(body, multiplier(kernels, dtype)), state, xs, reverse=reverse)


def loss(loop, reverse, kernels, closed, state, xs):
    """Returns the loss of a loop with two kernels of different shapes in sequence, a mask, and closed-over arrays."""
    mask = jnp.arange(7)[:, None, None, None] < jnp.array([7, 3, 0])[:, None, None]

    def body(multiply, state, now):
        x, real = now
        wide = jnp.tanh(multiply("wide", state["h"]) + x + closed["bias"])
        h = jnp.where(real, multiply("back", wide) * closed["scale"], state["h"])
        return {"h": h, "sum": state["sum"] + h}, (h, wide)

    last, (h, wide) = loop(body, kernels, state, (xs, mask), dtype="float32", reverse=reverse)
    return (last["sum"] ** 2).sum() + (h * jnp.arange(h.size).reshape(h.shape)).sum() + (wide**3).sum()


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients(reverse):
    given = (
        {"wide": drawn(4, 5), "back": drawn(5, 4)},
        {"bias": drawn(5), "scale": drawn(3, 1, 1)},
        {"h": drawn(3, 2, 4), "sum": drawn(3, 2, 4)},
        drawn(7, 3, 2, 5),
    )
    wanted, result = (
        jax.jit(jax.value_and_grad(functools.partial(loss, loop, reverse), (0, 1, 2, 3)))(*given)
        for loop in (plain, scan)
    )
    for left, right in zip(jax.tree.leaves(wanted), jax.tree.leaves(result), strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-5, atol=1e-5 * np.abs(left).max())


def test_no_position():
    state = {"h": drawn(3, 2, 4), "sum": drawn(3, 2, 4)}
    kernels = {"w": drawn(4, 4)}

    def body(multiply, state, x):
        return {"h": multiply("w", state["h"]) + x, "sum": state["sum"]}, x

    result, ys = scan(body, kernels, state, drawn(0, 3, 2, 4), dtype="float32")
    np.testing.assert_array_equal(result["h"], state["h"])
    assert ys.shape == (0, 3, 2, 4)


def kernel_sums(jaxpr, shape, looping=False):
    """Counts the sums as large as the kernel within loops."""
    inner = [(eqn, sub) for eqn in jaxpr.eqns for sub in jax.extend.core.jaxprs_in_params(eqn.params)]
    here = sum(eqn.primitive.name in ("add", "add_any") and eqn.outvars[0].aval.shape == shape for eqn in jaxpr.eqns)
    return looping * here + sum(
        kernel_sums(sub, shape, looping or eqn.primitive.name == "scan") for eqn, sub in inner
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_sum_as_large_as_the_kernel_in_the_loop(dtype):
    x, mask = drawn(2, 3, 5), jnp.ones((2, 3), bool)
    layer = Recurrent("lstm", 5, 4, dtype=dtype)
    params = layer.init(jax.random.key(0), x, mask)
    gradient = jax.make_jaxpr(jax.grad(lambda params: layer.apply(params, x, mask)[0].sum()))(params)
    assert kernel_sums(gradient.jaxpr, (4, 16)) == 0

    kernel = params["params"]["recurrent"]
    kernels = {"w": kernel}

    def body(multiply, state, x):
        return multiply("w", state)[:, :4], None

    def ends(loop, kernels):
        return loop(body, kernels, drawn(2, 4), drawn(3, 2), dtype=dtype, reverse=False)[0].sum()

    for loop, sums in ((plain, 1), (scan, 0)):
        gradient = jax.make_jaxpr(jax.grad(functools.partial(ends, loop)))(kernels)
        assert kernel_sums(gradient.jaxpr, (4, 16)) == sums


def test_devices_add_their_sums_after_the_loop():
    """Two devices share a batch and multiply their own rows. In a plain loop they synchronize at every position."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    whole, shared = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (None, "data")))
    kernels, xs = jax.device_put({"w": drawn(4, 4)}, whole), jax.device_put(drawn(5, 6, 4), shared)

    def body(multiply, state, x):
        return jnp.tanh(multiply("w", state) + x), None

    def total(loop, kernels, xs):
        return loop(body, kernels, jnp.zeros_like(xs[0]), xs, dtype="float32", reverse=False)[0].sum()

    for loop, wanted in ((plain, [["all-reduce"], []]), (scan, [[], ["all-reduce"]])):
        gradient = jax.jit(jax.grad(functools.partial(total, loop)), out_shardings={"w": whole})
        inner, _, entry = gradient.lower(kernels, xs).compile().as_text().partition("ENTRY ")
        assert [re.findall(r" (all-\w+|collective-\w+)\(", part) for part in (inner, entry)] == wanted


def test_other_transformations():
    """Gradients are correct under jit, checkpoint, scan, vmap and a second grad, with a mask and a number that the
    body closes over.
    """
    kernels, state, xs = {"w": drawn(4, 4)}, drawn(3, 4), drawn(5, 3, 4)
    mask, number = jnp.array([True, False, True])[:, None], jnp.int32(2)

    def total(loop, mask, number, kernels):
        def body(multiply, state, x):
            new = jnp.tanh(multiply("w", state) + number * x)
            return jnp.where(mask, new, state), None

        return (loop(body, kernels, state, xs, dtype="float32", reverse=False)[0] ** 2).sum()

    def again(loss):
        return lambda mask, number, kernels: jax.lax.scan(
            lambda sum, _: (sum + jax.checkpoint(loss)(mask, number, kernels), None), 0.0, None, length=2
        )[0]

    def many(loss):
        return lambda mask, number, kernels: jax.vmap(loss, (None, 0, None))(
            mask, number + jnp.arange(2), kernels
        ).sum()

    def steep(loss):
        return lambda *given: (jax.grad(loss, 2)(*given)["w"] ** 2).sum()

    for around in (jax.jit, jax.checkpoint, again, many, steep):
        wanted, result = (
            jax.grad(around(functools.partial(total, loop)), 2)(mask, number, kernels)["w"] for loop in (plain, scan)
        )
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_a_body_that_multiplies_otherwise():
    kernels = {"w": drawn(4, 4), "other": drawn(4, 4)}
    for names, message in (
        (["w"], r"by \['w'\], but the kernels are \['other', 'w'\]"),
        (["w", "w", "other"], "'w' twice"),
    ):

        def body(multiply, state, x, names=names):
            for name in names:
                state = multiply(name, state)
            return state, None

        with pytest.raises(ValueError, match=message):
            scan(body, kernels, drawn(2, 4), drawn(3, 2), dtype="float32")
