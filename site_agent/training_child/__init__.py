"""The process that reads patients' data and trains, for one study; and the agent's side of it.

    frames.py          the pipe's format: a length, a JSON head, arrays as raw bytes; pure
    pipe.py            frames over a socket pair
    orders.py          what the agent asks, and what it starts the process with
    answers.py         what the process answers, held against what the study says before memory is taken
    child_process.py   the agent's side: start, ask, watch the time, end
    __main__.py        the process: give up what it does not need, then serve
    serving.py         the process at work, with torch

Between them nothing is pickled, and the agent believes nothing it is told (ADR 40, threat T-28).
"""
