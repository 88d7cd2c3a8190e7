"""Greets whoever asks: the last part of the path, or everybody."""

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, out: ResponseOutparam) -> None:
        name = (request.path_with_query() or "/").strip("/") or "world"
        print(f"greeting {name}", flush=True)

        response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain; charset=utf-8")]))
        body = response.body()
        ResponseOutparam.set(out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(f"Hello, {name}, from Python\n".encode())
        OutgoingBody.finish(body, None)
