"""Measures samples and models: every number comes back as a ``Measurement`` with its protocol.

    request     what a user asks for: ``Measuring``, which is handed whole from the command line to here
    trained     ``measure_model``: a model beside its data; ``folders``: images without a model
    plain       what other programs made: tensors, strings, arrays
    metric      the contract of a metric; ``shipped`` holds those that ship, grouped by what they need
    context     what metrics read, computed once and when it is first asked for
    engine      finds the metrics that apply, or that were named, and runs them
    views       what pictures, texts and music offer to metrics; ``answers``: all that is asked of a model

Nothing is imported here, so that the request can be read without torch.
"""
