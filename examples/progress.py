"""Progress of a long job: text messages beside the bytes that it makes, shown as a bar on a terminal.

Needs an engine: python -m iii_sync engine. With tqdm installed (it is part of iii_sync[engine]) there is a bar.
"""

import gzip
import json
import sys
import time
from typing import Any

from iii_sync import register_worker

ROWS = 200


def report(data: dict[str, Any]) -> dict[str, int]:
    """The function: makes a compressed report and says how far it is."""
    with data["writer"] as out:
        compressed = gzip.GzipFile(fileobj=out, mode="wb")
        for row in range(1, data["rows"] + 1):
            compressed.write(f"row {row}: {row * row}\n".encode())
            time.sleep(0.005)  # the job
            if row % 10 == 0:
                compressed.flush()
                out.send_message(json.dumps({"done": row, "of": data["rows"]}))
        compressed.close()
    return {"rows": data["rows"]}


def main() -> None:
    """The caller: unpacks the report and shows the progress."""
    bar = None
    if sys.stderr.isatty():
        try:
            from tqdm import tqdm

            bar = tqdm(total=ROWS, unit=" rows")
        except ImportError:
            pass

    def show(text: str) -> None:
        progress = json.loads(text)
        if bar is not None:
            bar.update(progress["done"] - bar.n)
        elif progress["done"] == progress["of"]:
            print("the job is done")

    with register_worker() as worker:
        worker.register_function("reports::make", report)
        channel = worker.create_channel()
        channel.reader.on_message(show)
        call = worker.submit("reports::make", {"rows": ROWS, "writer": channel.writer_ref})
        # The last message may come after the last byte: read to the end.
        with channel.reader as source:
            lines = gzip.decompress(source.read()).splitlines()
        result = call.result(timeout=10)
    if bar is not None:
        bar.close()
    print(f"{len(lines)} lines of {result['rows']}, the last one: {lines[-1].decode()}")


if __name__ == "__main__":
    main()
