"""SROS 2: the policies that ship allow what the executables do, and no more than they say."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest
import rclpy
from node_harness import PATIENCE, wait_for
from rclpy.node import Node, NodeNameNonExistentError

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "config" / "security"
CONSOLE_PORT = 20_000 + os.getpid() % 10_000


def parameters(*given: str) -> list[str]:
    return ["--ros-args", *(word for each in given for word in ("-p", each))]


# Executables with the arguments that make them open every topic they have.
STARTS = {
    "tracker_node": parameters("depth:=depth", "camera_rates:=camera_rates", "target_tf:=true"),
    "evaluate_node": parameters("init:=1,2,30,40"),
    "frame_source": parameters("image_transport:=both", "loop:=true", "init:=1,2,30,40"),
    "mavlink_camera": parameters("gimbal_rates:=gimbal_rates", "url:=udpout:127.0.0.1:9"),
    "operator_console": parameters("trackers:=tracker", f"port:={CONSOLE_PORT}"),
    "pan_tilt_controller": parameters("pan_joint:=pan", "tilt_joint:=tilt"),
    "pan_tilt_simulation": parameters(),
    "wait_until_active": ["/tracker"],
}
# Nodes of an executable beside the one that its policy names.
FURTHER = {"operator_console": "tracker_client", "frame_source": "tracker_client"}
KINDS = ("publish", "subscribe", "reply", "request")
Used = dict[str, set[str]]


def profile(policy: Path) -> tuple[str, str, Used]:
    """A policy's enclave, its node, and what that may do: full names by kind."""
    enclave = ElementTree.parse(policy).find("enclaves/enclave")
    assert enclave is not None
    found = enclave.find("profiles/profile")
    assert found is not None
    parts = [found]
    for include in found.findall("{http://www.w3.org/2001/XInclude}include"):
        assert include.get("xpointer") == "xpointer(/profile/*)"
        parts.append(ElementTree.parse(POLICIES / include.attrib["href"]).getroot())
    allowed: Used = {kind: set() for kind in KINDS}
    for element in (each for part in parts for each in part):
        for kind in KINDS:
            if element.get(kind) == "ALLOW":
                allowed[kind] |= {full(each.text or "", found.attrib["node"]) for each in element}
    return enclave.attrib["path"], found.attrib["node"], allowed


def full(name: str, node: str) -> str:
    return name if name.startswith("/") else "/" + name.replace("~", node)


def used(observer: Node, name: str) -> Used:
    """What a node has opened; nothing, as long as the node is not fully discovered."""
    asked = (
        observer.get_publisher_names_and_types_by_node,
        observer.get_subscriber_names_and_types_by_node,
        observer.get_service_names_and_types_by_node,
        observer.get_client_names_and_types_by_node,
    )
    try:
        return {
            kind: {topic for topic, _ in ask(name, "/")}
            for kind, ask in zip(KINDS, asked, strict=True)
        }
    except NodeNameNonExistentError:
        return {kind: set() for kind in KINDS}


@contextmanager
def running(
    name: str, log: Path, arguments: list[str], environment: dict[str, str] | None = None
) -> Iterator[None]:
    """An executable as a process of its own."""
    command = [sys.executable, "-m", f"siamcar_ros.ros.{name}", *arguments]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"} | (environment or {}),
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


@contextmanager
def open_page() -> Iterator[None]:
    """A page of the operator console, which listens to the tracker only while one is open."""
    aiohttp = pytest.importorskip("aiohttp")
    url, leave = f"http://127.0.0.1:{CONSOLE_PORT}", threading.Event()

    async def stay() -> None:
        async with aiohttp.ClientSession(headers={"Origin": url}) as session:
            while not leave.is_set():
                with suppress(aiohttp.ClientError):
                    async with session.ws_connect(f"{url}/ws") as socket:
                        await socket.send_json({"do": "watch", "camera": "", "width": 640})
                        while not leave.is_set() and not socket.closed:
                            with suppress(TimeoutError):
                                await socket.receive(timeout=1.0)
                await asyncio.sleep(0.1)

    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(asyncio.run, stay())
        try:
            yield
        finally:
            leave.set()
    page.result()


def test_every_executable_has_a_policy_of_its_own() -> None:
    text = (ROOT / "CMakeLists.txt").read_text()
    executables = set(re.findall(r"install_executable\((\w+) \S+ lib/", text))
    policies = {file.name.removesuffix(".policy.xml") for file in POLICIES.glob("*.policy.xml")}
    assert policies == executables
    enclaves = [profile(POLICIES / f"{name}.policy.xml")[0] for name in sorted(policies)]
    assert enclaves == [f"/siamcar/{name}" for name in sorted(policies)]


@pytest.mark.slow
@pytest.mark.parametrize("name", STARTS)
def test_a_policy_allows_what_the_executable_opens(name: str, tmp_path: Path) -> None:
    if name == "mavlink_camera":
        pytest.importorskip("pymavlink")
    _, node_name, allowed = profile(POLICIES / f"{name}.policy.xml")
    # In another domain: here there may be a second `tracker_client`, that of other tests.
    domain = (int(os.environ["ROS_DOMAIN_ID"]) + 50) % 100 + 1
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    observer = rclpy.create_node("observer", context=context)
    log = tmp_path / "log"
    try:
        nodes = {node_name, FURTHER.get(name, node_name)}
        page = open_page() if name == "operator_console" else nullcontext()
        with running(name, log, STARTS[name], {"ROS_DOMAIN_ID": str(domain)}), page:
            seen: dict[str, object] = {}

            def opened() -> Used | None:
                seen["nodes"] = observer.get_node_names()
                if not nodes <= set(observer.get_node_names()):
                    return None
                each_node = [used(observer, each) for each in nodes]
                found = {kind: set().union(*(each[kind] for each in each_node)) for kind in KINDS}
                # Ready when it has what the policy is about, apart from names that a launch file
                # or a deployment gives.
                own = {each for each in allowed["publish"] if f"/{node_name}/" in each}
                own.discard("/tracker/annotations")  # needs foxglove_msgs
                own |= {each for each in allowed["subscribe"] if each.startswith("/tracker/")}
                seen["missing"] = own - found["publish"] - found["subscribe"]
                return None if seen["missing"] else found

            try:
                found = wait_for(f"node {node_name}", opened)
            except AssertionError as error:
                raise AssertionError(f"{error}; seen: {seen}; log:\n{log.read_text()}") from None
            assert found is not None
            if name == "tracker_node":
                wait_for("images", lambda: "/image" in used(observer, node_name)["subscribe"])
                found = used(observer, node_name)
    finally:
        observer.destroy_node()
        context.try_shutdown()
    missing = {kind: sorted(found[kind] - allowed[kind]) for kind in KINDS}
    assert not any(missing.values()), f"add to {name}.policy.xml: {missing}"


@pytest.fixture
def keystore(tmp_path: Path) -> Path:
    """Keys and permissions for all policies, made as docs/security.md says."""
    enclave = tmp_path / "none" / "enclaves" / "x"
    enclave.mkdir(parents=True)
    certificates = ("identity_ca.cert.pem", "permissions_ca.cert.pem", "cert.pem", "key.pem")
    for file in (*certificates, "governance.p7s", "permissions.p7s"):
        (enclave / file).touch()
    script = (
        "import rclpy; rclpy.init(args=['--ros-args', '--enclave', '/x'])\nrclpy.create_node('x')"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ} | secured(tmp_path / "none"),
        capture_output=True,
        text=True,
        check=False,
    ).stderr
    if "doesn't have the security libraries" in said or "not supported" in said:
        pytest.skip("the middleware was built without security, as Fast DDS's Python wheels are")
    if (
        shutil.which("ros2") is None
        or subprocess.run(
            ["ros2", "security", "--help"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("`ros2 security` (the package sros2) is not installed")
    made = tmp_path / "keystore"
    subprocess.run(["ros2", "security", "create_keystore", str(made)], check=True)
    for policy in sorted(POLICIES.glob("*.policy.xml")):  # several at once can crash lxml
        command = ["ros2", "security", "generate_artifacts", "-k", str(made), "-p", str(policy)]
        subprocess.run(command, check=True)
    return made


def secured(keystore: Path) -> dict[str, str]:
    return {
        "ROS_SECURITY_KEYSTORE": str(keystore),
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
    }


@pytest.mark.slow
def test_a_secured_tracker_follows_and_others_hear_nothing(keystore: Path, tmp_path: Path) -> None:
    """Film, tracker and evaluation in their enclaves; an observer without keys."""
    report = tmp_path / "live.json"
    starts = {
        "tracker_node": parameters(),
        "frame_source": parameters("loop:=true", "init:=ground_truth"),
        "evaluate_node": parameters(f"report:={report}"),
    }
    context = rclpy.Context()
    rclpy.init(context=context)
    observer = rclpy.create_node("observer", context=context)
    try:
        with ExitStack() as stack:
            for name, arguments in starts.items():
                enclave = ["--enclave", f"/siamcar/{name}"]
                process = running(name, tmp_path / name, arguments + enclave, secured(keystore))
                stack.enter_context(process)
            wait_for("scores", lambda: "overlap" in (tmp_path / "evaluate_node").read_text())
            assert "tracker" not in observer.get_node_names()
    finally:
        observer.destroy_node()
        context.try_shutdown()
    assert json.loads(report.read_text())
