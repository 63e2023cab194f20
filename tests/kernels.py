"""A real kernel, driven as a notebook drives it: code goes in, messages come out. It waits for messages, not time."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import environ

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager

PATIENCE = 300  # seconds after which a kernel or a server counts as hung, on however busy a machine
WIDGET = "application/vnd.jupyter.widget-view+json"


class Kernel:
    """Made by `kernel`; each message is (type, content)."""

    def __init__(self, manager: KernelManager):
        self.manager, self.client = manager, manager.client()
        self.client.start_channels()

    def send(self, code: str, cell_id: str | None = None) -> str:
        """Begin to run a cell; returns the id that `read` takes."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        message = self.client.session.msg("execute_request", content, metadata={"cellId": cell_id} if cell_id else {})
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def read(self, sent: str, until: Callable[[str, dict], bool] = lambda kind, content: False) -> list[tuple]:
        """What the cell shows, up to its end or to the message that `until` accepts."""
        shown = []
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != sent:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return shown
            shown.append((kind, content))
            if until(kind, content):
                return shown

    def run(self, code: str, cell_id: str | None = None) -> list[tuple]:
        """What a cell shows."""
        return self.read(self.send(code, cell_id))

    def stop(self, code: str, when: Callable[[str, dict], bool]) -> list[tuple]:
        """What a cell shows after Stop, pressed at the first message that `when` accepts."""
        sent = self.send(code)
        self.read(sent, when)
        self.manager.interrupt_kernel()
        return self.read(sent)


@contextmanager
def kernel(python: str = sys.executable, **variables: str) -> Iterator[Kernel]:
    """A fresh kernel of this environment (or of another `python`), with these environment variables."""

    class Spec(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            command = [python, *get_kernel_dict()["argv"][1:]]
            return KernelSpec(resource_dir=str(RESOURCES), **get_kernel_dict() | {"argv": command})

    manager = KernelManager(kernel_spec_manager=Spec())
    kept = {name: value for name, value in environ.items() if name != "JPY_SESSION_NAME"}
    manager.start_kernel(env=kept | variables, extra_arguments=["--IPKernelApp.log_level=50"])
    one = Kernel(manager)
    try:
        one.client.wait_for_ready(timeout=PATIENCE)
        yield one
    finally:
        one.client.stop_channels()
        manager.shutdown_kernel(now=True)


def outputs(messages: list[tuple]) -> list[dict]:
    """What a cell leaves in a saved notebook: its data outputs by MIME type, updates carried out."""
    left: dict[str, dict] = {}
    for number, (kind, content) in enumerate(messages):
        if kind in ("display_data", "update_display_data"):
            left[content["transient"].get("display_id", str(number))] = content["data"]
    return list(left.values())


def printed(messages: list[tuple]) -> str:
    """What a cell prints."""
    return "".join(content["text"] for kind, content in messages if kind == "stream")


def errors(messages: list[tuple]) -> list[list[str]]:
    """The tracebacks of a cell, line by line."""
    return [content["traceback"] for kind, content in messages if kind == "error"]
