"""Runs behind HTTP: one engine that draws, and the protocols that existing clients speak.

limits      what one client may ask for
served      a run that is loaded, and loaded again when its model changes
workers     the threads that draw: batches of pictures, texts that join and leave
service     ``Engine``: requests in, samples or text out; knows nothing of HTTP
words       what is given in JSON, as the values that a run takes; pictures are decoded under strict limits
openai · predict · inference    the endpoints: OpenAI's, TensorFlow Serving's (KServe V1), Open Inference V2
gate        keys, limits of time and size, metrics, logs: what stands before every endpoint
app         all of it as one Starlette application, and the server
"""
