"""A bundle's network as one line of JSON for a study, and back (pure).

A study names the bundle's digest and carries the definition itself, computed and with every argument written out. So
the coordinator and a simulation need no bundle, a steward reads in the study what will be built, and every hospital
compares it with its copy of the bundle (`approval.py`).
"""

import json

from site_agent.bundles import documents, targets
from site_agent.bundles.checking import Component
from site_agent.bundles.documents import Value
from site_agent.bundles.reading import BundleFile
from site_agent.bundles.refusals import BundleRefused, Finding
from site_agent.bundles.targets import Kind

FIELD = "model.args.definition"
"""Where a study has it."""

CLASSIFIERS = frozenset({"DenseNet121", "EfficientNetBN", "SEResNet50", "ViT"})
"""Networks that give an image one label; the others give every place of it one."""


def definition_of(network: Component) -> str:
    """The network of a checked bundle in one line, its keys in order."""
    return json.dumps({"_target_": network.target.name, **network.arguments}, sort_keys=True)


def study_name_of(network: Component) -> str:
    """What a study calls it: `model.network`."""
    return "bundle-classifier" if network.target.name in CLASSIFIERS else "bundle-segmenter"


def component_of(definition: str) -> Component:
    """The network that a study's definition stands for; it is held against the same allow-list as a bundle's.

    Raises:
        BundleRefused: With every place in it that is not allowed.
    """
    raw = definition.encode()
    file = BundleFile(name=f"{FIELD}.json", size_bytes=len(raw), sha256="", content=raw)
    parsed = documents.parse(file)
    name = parsed.pop("_target_", None)
    target = targets.TARGETS.get(name) if isinstance(name, str) else None
    if target is None or target.kind is not Kind.NETWORK or name != target.name:
        raise BundleRefused([_finding("_target_", json.dumps(name), "a network of the allow-list by its short name")])
    if findings := [_finding(at, found, allowed) for at, found, allowed in targets.objections(target, parsed)]:
        raise BundleRefused(findings)
    arguments: dict[str, Value] = parsed
    return Component(file="the study", id=FIELD, target=target, arguments=arguments)


def _finding(at: str, found: str, allowed: str) -> Finding:
    advice = "Take the line that site-agent bundle check prints."
    return Finding(file="the study", id=f"{FIELD}#{at}", found=found, allowed=allowed, advice=advice)
