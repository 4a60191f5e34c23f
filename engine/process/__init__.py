"""The engine in a process of its own: the messages between the two ends, and both ends.

messages.py  what they say to each other, one JSON object a line
worker.py    the end that makes clips
client.py    the server's end: one process, started anew after every death
child.py     a running process, and the threads that write to it and read from it
inline.py    the same without a process, where a Space lends its GPU to a function
rotate.py    log files that do not grow without end
"""
