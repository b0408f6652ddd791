"""What runs the model: transformers in this process, or vLLM (`awry run --engine vllm`). All score by one arithmetic.

What an engine must do is `probes.engines.base.Engine`; tests/probes/engines/contract.py holds it for each of them.
"""
