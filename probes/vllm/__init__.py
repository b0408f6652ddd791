"""awry inside vLLM: a KV connector that reads the server's own forward pass (docs/vllm.md).

What is here runs in vLLM's environment, with torch, numpy, pydantic and safetensors and none of awry's other
dependencies.
"""
