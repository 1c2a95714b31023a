"""A function and a call of it, on one worker. Needs an engine: python -m iii_sync engine."""

from iii_sync import register_worker

with register_worker() as worker:

    @worker.function("greetings::hello")
    def hello(data: dict[str, str]) -> dict[str, str]:
        return {"text": f"Hello, {data['name']}!"}

    print(worker.trigger("greetings::hello", {"name": "iii"})["text"])
