"""KServe's own client, unchanged, over both of its protocols.

Opt-in, since its package wants another protobuf than ours: BOWERBIRD_KSERVE_PYTHON names the Python of an environment
of its own (``python -m venv kserve && kserve/bin/pip install kserve``), in which nothing of ours is needed.
"""

import json
import os
import subprocess

import numpy as np
import pytest
from asking import KEY

PYTHON = os.environ.get("BOWERBIRD_KSERVE_PYTHON")
CLIENT = """
import asyncio, json, sys

import numpy as np
from kserve import InferInput, InferRequest, InferenceRESTClient, RESTConfig

address, headers = sys.argv[1], {"Authorization": f"Bearer {sys.argv[2]}"}


async def main():
    first = InferenceRESTClient(RESTConfig(protocol="v1"))
    instances = {"instances": [{"label": "upper", "seed": 7}, {"label": "lower", "seed": 7}]}
    predicted = (await first.infer(address, instances, model_name="classes", headers=headers))["predictions"]
    second = InferenceRESTClient(RESTConfig(protocol="v2"))
    label = InferInput("label", [2], "BYTES")
    label.set_data_from_numpy(np.array([b"upper", b"lower"], dtype=np.object_), binary_data=False)
    seed = InferInput("seed", [1], "INT64", [7])
    asked = InferRequest(model_name="classes", infer_inputs=[label, seed])
    inferred = await second.infer(address, asked, model_name="classes", headers=headers)
    found = {one.name: one.as_numpy() for one in inferred.outputs}
    ready = [await second.is_server_ready(address, headers)]
    ready += [await second.is_model_ready(address, "classes", headers)]
    print(json.dumps({
        "ready": ready,
        "v1": [np.asarray(one["x"]).tolist() for one in predicted],
        "v2": found["x"].tolist(),
    }))


asyncio.run(main())
"""


@pytest.mark.skipif(not PYTHON, reason="needs kserve in an environment of its own: set BOWERBIRD_KSERVE_PYTHON to it")
def test_kserves_client_gets_the_same_pictures_over_both_protocols(address: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(PYTHON), "-c", CLIENT, address, KEY], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["ready"] == [True, True]
    first, second = np.array(said["v1"]), np.array(said["v2"])
    assert first.shape == second.shape == (2, 1, 8, 8)
    np.testing.assert_allclose(first, second, atol=1e-5)
